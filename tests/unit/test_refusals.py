"""What the API refuses, as Claude Code tells it: by the hook of a failed turn, and in the transcript."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lib.claude import refusals
from lib.claude.hooks import HookReport
from lib.models import LimitKind, Program, Refusal

AT = datetime(2026, 11, 28, 18, 30, tzinfo=UTC)
NOW = round(AT.timestamp() * 1000)
RESET = 1795910400  # midnight after it
HOUR_MS = 3600 * 1000

FAILED = HookReport(
    event="StopFailure", conversation_id="c", prompt="", error="", last_message="", source="", notification=""
)

# Error and words of the hook, as measured with 2.1.330 unless said otherwise; kind, and whether a reset time is read.
HOOKS = [
    ("rate_limit", "You've hit your 5-hour limit · resets 12am (UTC)", LimitKind.FIVE_HOUR, True),
    ("rate_limit", "You've hit your session limit · resets 12am (UTC)", LimitKind.FIVE_HOUR, True),  # from its strings
    ("rate_limit", "You've hit your weekly limit · resets Nov 29, 12am (UTC)", LimitKind.WEEKLY, True),
    ("rate_limit", "You've hit your Opus limit · resets Nov 29, 12am (UTC)", LimitKind.WEEKLY, True),
    ("rate_limit", "You've hit your limit", LimitKind.FIVE_HOUR, False),
    ("rate_limit", "You've hit your monthly spend limit.", LimitKind.SPEND, False),
    ("rate_limit", "Claude usage limit reached. Your limit will reset at 12am (UTC).", LimitKind.FIVE_HOUR, True),
    # A key's rate: the account is all right, and the same may be asked a minute later.
    (
        "rate_limit",
        "API Error: Request rejected (429) · this may be a temporary capacity issue",
        LimitKind.OVERLOADED,
        False,
    ),
    (
        "rate_limit",
        "API Error: Request rejected (429) · This request would exceed your organization's rate limit of 40,000 tokens",
        LimitKind.OVERLOADED,
        False,
    ),
    ("server_error", "API Error: Connection refused — a firewall may be blocking it", LimitKind.OVERLOADED, False),
    ("server_error", "API Error: 529 Overloaded. This is a server-side issue", LimitKind.OVERLOADED, False),
    ("server_error", "API Error: 500 Internal server error. resets 3am (UTC)", LimitKind.OVERLOADED, False),
    ("overloaded", "", LimitKind.OVERLOADED, False),
    ("unknown", "API Error: Unable to connect to API (ConnectionRefused)", LimitKind.OVERLOADED, False),
    ("billing_error", "Credit balance too low · Add funds: https://platform.claude.com", LimitKind.SPEND, False),
    ("authentication_failed", "Invalid API key · Fix external API key", LimitKind.LOGIN, False),
    ("authentication_failed", "Please run /login · API Error: 401 OAuth token has expired.", LimitKind.LOGIN, False),
    ("authentication_failed", "Not logged in · Please run /login", LimitKind.LOGIN, False),
]


@pytest.mark.parametrize(("error", "words", "kind", "has_time"), HOOKS)
def test_the_hook_of_a_refused_turn(error: str, words: str, kind: LimitKind, has_time: bool) -> None:
    found = refusals.of_hook(replace(FAILED, error=error, last_message=words), now=NOW)
    assert found == Refusal(kind, words, RESET * 1000 if has_time else None)


@pytest.mark.parametrize(
    "report",
    [
        # Failures that are about one request or one setting.
        replace(FAILED, error="invalid_request", last_message="Prompt is too long"),
        replace(FAILED, error="model_not_found", last_message="There's an issue with the selected model"),
        replace(FAILED, error="max_output_tokens"),
        replace(FAILED, error="unknown", last_message="You've hit your 5-hour limit · resets 3am"),
        replace(FAILED, error=""),
        # A turn that has ended well, whatever it talks about.
        replace(FAILED, event="Stop", last_message="You've hit your 5-hour limit · resets 3am (UTC)"),
        replace(FAILED, event="UserPromptSubmit", prompt="You've hit your 5-hour limit", error="rate_limit"),
    ],
)
def test_what_is_no_limit(report: HookReport) -> None:
    assert refusals.of_hook(report, now=NOW) is None


def refusal_entry(**changed: Any) -> dict[str, Any]:
    """The entry of a five-hour limit as 2.1.330 writes it."""
    return {
        "type": "assistant",
        "timestamp": "2026-11-28T18:30:00.000Z",
        "message": {
            "model": "<synthetic>",
            "content": [{"type": "text", "text": "You've hit your 5-hour limit · resets 12:01am (UTC)"}],
        },
        "isApiErrorMessage": True,
        "error": "rate_limit",
        "apiErrorStatus": 429,
        "apiError": "usage_limit_reached",
        "apiErrorParams": {"rate_limit_info": {"status": "rejected", "resetsAt": RESET, "rateLimitType": "five_hour"}},
    } | changed


SAID = {"type": "assistant", "timestamp": "2026-11-28T18:31:00.000Z", "message": {"content": "You've hit your limit"}}
PROMPT = {"type": "user", "message": {"content": "resets 3am (UTC)"}}


def written(folder: Path, *entries: dict[str, Any] | bytes) -> Path:
    path = folder / "c.jsonl"
    path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in entries))
    return path


def info(**values: object) -> dict[str, Any]:
    return {"rate_limit_info": values}


# The transcript's end, and the kind and reset time that are read.
TRANSCRIPTS = [
    # The parameters say more than the words.
    ([refusal_entry()], LimitKind.FIVE_HOUR, RESET * 1000),
    ([refusal_entry(apiErrorParams=info(resetsAt=RESET, rateLimitType="seven_day"))], LimitKind.WEEKLY, RESET * 1000),
    (
        [refusal_entry(apiErrorParams=info(resetsAt=RESET, rateLimitType="seven_day_opus"))],
        LimitKind.WEEKLY,
        RESET * 1000,
    ),
    ([refusal_entry(apiErrorParams=info(rateLimitType="overage"))], LimitKind.SPEND, (RESET + 60) * 1000),
    # Without them the words count.
    ([refusal_entry(apiErrorParams=None)], LimitKind.FIVE_HOUR, (RESET + 60) * 1000),
    ([refusal_entry(apiErrorParams={"rate_limit_info": "soon"})], LimitKind.FIVE_HOUR, (RESET + 60) * 1000),
    ([refusal_entry(apiErrorParams=info(resetsAt="soon"))], LimitKind.FIVE_HOUR, (RESET + 60) * 1000),
    ([refusal_entry(apiErrorParams=info(resetsAt=10**18))], LimitKind.FIVE_HOUR, (RESET + 60) * 1000),
    # Prompts, cut lines and foreign entries behind it change nothing.
    ([refusal_entry(), PROMPT, b'{"type": "assist'], LimitKind.FIVE_HOUR, RESET * 1000),
    ([refusal_entry(), b"[1, 2]\n", b"\xff\xfe\n", {"type": "unheard-of"}], LimitKind.FIVE_HOUR, RESET * 1000),
]


@pytest.mark.parametrize(("entries", "kind", "resets_at"), TRANSCRIPTS)
def test_the_end_of_a_transcript(tmp_path: Path, entries: list[Any], kind: LimitKind, resets_at: int | None) -> None:
    found = refusals.last(written(tmp_path, SAID, *entries))
    assert found is not None
    assert (found[0].kind, found[0].resets_at, found[1]) == (kind, resets_at, NOW)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [SAID],  # a conversation about limits is none
        [refusal_entry(), SAID],  # it went on
        [refusal_entry(timestamp=None)],  # nobody knows when
        [refusal_entry(timestamp="yesterday")],
        [refusal_entry(error="invalid_request", apiError=None, apiErrorParams=None)],
        [refusal_entry(isApiErrorMessage=False)],
        [b"\n\n{}\n[]\n"],
        [b"[" * 100_000],
    ],
)
def test_a_transcript_without_a_limit_at_its_end(tmp_path: Path, entries: list[Any]) -> None:
    assert refusals.last(written(tmp_path, *entries)) is None


# Measured: with a reset within a day the client goes on by itself, later it opens a dialog.
@pytest.mark.parametrize(
    ("program", "kind", "hours", "does"),
    [
        (Program.CLAUDE, LimitKind.FIVE_HOUR, 5, True),
        (Program.CLAUDE, LimitKind.WEEKLY, 23, True),
        (Program.CLAUDE, LimitKind.WEEKLY, 25, False),
        (Program.CLAUDE, LimitKind.SPEND, 1, False),
        (Program.CLAUDE, LimitKind.FIVE_HOUR, None, False),
        (Program.REHEARSAL, LimitKind.FIVE_HOUR, 5, False),
    ],
)
def test_who_goes_on_without_us(program: Program, kind: LimitKind, hours: int | None, does: bool) -> None:
    resets_at = None if hours is None else NOW + hours * HOUR_MS
    assert refusals.continues_by_itself(program, kind, resets_at, NOW) is does


@pytest.mark.parametrize(
    ("report", "has"),
    [
        (
            replace(FAILED, event="UserPromptSubmit", prompt="Your claude.ai usage limit has reset. Continue the task"),
            True,
        ),
        (replace(FAILED, event="Notification", notification="quota_auto_resume_fired"), True),
        (replace(FAILED, event="Notification", notification="idle_prompt"), False),
        (replace(FAILED, event="UserPromptSubmit", prompt="Has your claude.ai usage limit has reset."), False),
    ],
)
def test_that_it_has(report: HookReport, has: bool) -> None:
    assert refusals.has_continued_by_itself(report) is has
