"""What the API refuses Claude Code: usage limits, credit, login, an overloaded service."""

from __future__ import annotations

import re
from pathlib import Path

from lib import resets
from lib.claude import transcripts
from lib.claude.hooks import HookReport
from lib.models import LimitKind, Program, Refusal

#: Why a turn ended, in the words of the hook StopFailure and of the transcript (2.1.330 has thirteen). The others,
#: such as `invalid_request` and `model_not_found`, are about one request or setting, and no limit.
_REFUSALS = {
    "billing_error": LimitKind.SPEND,
    "authentication_failed": LimitKind.LOGIN,
    "oauth_org_not_allowed": LimitKind.LOGIN,
    "account_on_hold": LimitKind.LOGIN,
    "verification_required": LimitKind.LOGIN,
    "cloud_credential_error": LimitKind.LOGIN,
    "server_error": LimitKind.OVERLOADED,
    "overloaded": LimitKind.OVERLOADED,
    "rate_limit": LimitKind.OVERLOADED,  # unless its words or its parameters say that the account's limit is reached
}
_UNREACHABLE = re.compile(r"connect|network|socket|timed? ?out|ECONN|ENOTFOUND|ETIMEDOUT|fetch failed", re.IGNORECASE)
_USAGE = re.compile(r"\bhit your\b.*\blimit\b|\blimit reached\b|\blimit will reset\b", re.IGNORECASE)
#: Which limit it is, in the client's names for them; the first that fits.
_USAGE_KINDS = (
    (re.compile(r"\b(5-hour|five_hour|session) ?", re.IGNORECASE), LimitKind.FIVE_HOUR),
    (re.compile(r"\b(weekly|seven_day\w*|7-day|Opus|Sonnet|Fable)\b", re.IGNORECASE), LimitKind.WEEKLY),
    (re.compile(r"\b(spend|credits?|overage|extra usage|monthly)\b", re.IGNORECASE), LimitKind.SPEND),
)
#: How Claude Code has an agent go on by itself after a limit; the prompt fires UserPromptSubmit.
_AUTO_CONTINUATION = "Your claude.ai usage limit has reset."
_AUTO_CONTINUED = "quota_auto_resume_fired"
#: It does so within two minutes of the reset (measured: 76 s). When that is further off than a day it opens a dialog
#: instead, whatever the setting says.
AUTO_CONTINUES_WITHIN_MS = 3 * 60_000
_AUTO_CONTINUES_BELOW_MS = 24 * 3600 * 1000


def of_hook(report: HookReport, *, now: int) -> Refusal | None:
    """What a StopFailure hook says of a limit; None when the turn has failed for another reason, or not at all."""
    if report.event != "StopFailure":
        return None
    return _refusal(report.error, report.last_message, now)


def last(path: Path) -> tuple[Refusal, int] | None:
    """The refusal that a transcript ends with, and when (UTC milliseconds); None when it ends otherwise."""
    start = max(0, path.stat().st_size - transcripts.TAIL_BYTES)
    answers = [entry for entry in transcripts.entries(path, start) if entry.get("type") == "assistant"]
    if not answers or not answers[-1].get("isApiErrorMessage"):
        return None
    entry, at = answers[-1], transcripts.written_at(answers[-1])
    about = transcripts.dictionary(transcripts.dictionary(entry.get("apiErrorParams")).get("rate_limit_info"))
    found = _refusal(str(entry.get("error")), "\n".join(transcripts.texts_in(transcripts.content_of(entry))), at)
    if found and (about or entry.get("apiError") == "usage_limit_reached"):
        kind = _usage_kind(str(about.get("rateLimitType") or "")) or _usage_kind(found.said) or LimitKind.FIVE_HOUR
        found = Refusal(kind, found.said, resets.checked(about.get("resetsAt"), now=at) or found.resets_at)
    return (found, at) if found and at else None


def _refusal(error: str, words: str, at: int) -> Refusal | None:
    kind = _REFUSALS.get(error)
    if kind is None and error == "unknown" and _UNREACHABLE.search(words):
        kind = LimitKind.OVERLOADED
    if kind is None:
        return None
    if error in ("rate_limit", "billing_error") and _USAGE.search(words):
        kind = _usage_kind(words) or (LimitKind.FIVE_HOUR if error == "rate_limit" else kind)
    is_timed = kind in (LimitKind.FIVE_HOUR, LimitKind.WEEKLY, LimitKind.SPEND)
    return Refusal(kind, " ".join(words.split())[:500], resets.parse(words, now=at) if is_timed else None)


def _usage_kind(words: str) -> LimitKind | None:
    return next((kind for pattern, kind in _USAGE_KINDS if pattern.search(words)), None)


def continues_by_itself(program: Program, refusal: LimitKind, resets_at: int | None, refused_at: int) -> bool:
    """Whether a Claude Code whose turn was refused takes it up again by itself, soon after the reset.

    It does so as long as it lives, unless somebody presses Escape in its window or another turn succeeds before.
    """
    if program is not Program.CLAUDE or refusal not in (LimitKind.FIVE_HOUR, LimitKind.WEEKLY) or resets_at is None:
        return False
    return resets_at - refused_at < _AUTO_CONTINUES_BELOW_MS


def has_continued_by_itself(report: HookReport) -> bool:
    """Whether a hook tells that Claude Code has just taken up a refused turn by itself."""
    return report.prompt.startswith(_AUTO_CONTINUATION) or report.notification == _AUTO_CONTINUED
