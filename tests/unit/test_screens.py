"""What a capture of a Claude Code pane shows: real captures of 2.1.330 in tmux 3.3a, as a table.

A capture is named SITUATION-COLUMNSxROWS-RENDERER.ansi. They were taken with the rehearsed model of
tests/claude_code; `fullscreen` and `classic` are CLAUDE_CODE_NO_FLICKER=1 and 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from lib.judgement.screens import (
    Dialog,
    Screen,
    ScreenKind,
    continues_by_itself,
    dialog,
    ends_with_line,
    has_limit_dialog,
    limit,
    read,
    without_clock,
)

CAPTURES = sorted((Path(__file__).parent / "screens").glob("*.ansi"))


class Expected(NamedTuple):
    kind: ScreenKind
    draft: str | re.Pattern[str] = ""
    busy: bool = False


COMPOSER, BASH_MODE, DIALOG, OTHER = ScreenKind
FRAMED = re.compile(r"(.*\n)*.*\[end of msg \d+\]")

SITUATIONS = {
    # An empty composer, and what may stand around it.
    "empty": Expected(COMPOSER),
    "empty-bypass": Expected(COMPOSER),
    "named": Expected(COMPOSER),  # --name writes the name into the upper rule
    "unfocused": Expected(COMPOSER),  # with focus-events on, a pane in the background has no cursor
    "stashed": Expected(COMPOSER),  # ctrl+s: "draft stashed"
    "exit-hint": Expected(COMPOSER),  # "Press Ctrl-C again to exit"
    "background-task": Expected(COMPOSER),  # "1 shell · ↓ to manage"
    "shortcuts": Expected(COMPOSER),  # "?": the help below begins with "! for shell mode"
    "limit-five": Expected(COMPOSER),  # "Continuing automatically at 1:01am · Esc to cancel" stands below
    "quoted": Expected(COMPOSER),  # the answer above holds rules and a prompt of its own
    # A dim placeholder is not a draft.
    "error": Expected(COMPOSER),  # "Once fixed, resend your message"
    "logged-out": Expected(COMPOSER),  # the same, after "Not logged in"
    # Drafts.
    "draft": Expected(COMPOSER, "say hi to the team"),
    "draft-home": Expected(COMPOSER, "say hi to the team"),  # the cursor is on the first letter
    "unfocused-draft": Expected(COMPOSER, "a draft here"),
    "slash-menu": Expected(COMPOSER, "/"),
    "vim-insert": Expected(COMPOSER, "hello there"),
    "vim-normal": Expected(COMPOSER, "hello there"),
    "multiline": Expected(COMPOSER, FRAMED),
    "long": Expected(COMPOSER, FRAMED),  # "↑ 54 more", or the upper rule has left the screen
    "long-middle": Expected(COMPOSER, re.compile(r"(Line \d+ of .*\n?)+")),  # rules say ↑ and ↓
    # At work.
    "busy": Expected(COMPOSER, busy=True),
    "busy-bypass": Expected(COMPOSER, busy=True),  # the footer is cut to "esc to i…"
    "queued": Expected(COMPOSER, busy=True),  # placeholder: "Press up to edit queued messages"
    "retrying": Expected(COMPOSER, busy=True),
    # What is typed would run in a shell.
    "bash-mode": Expected(BASH_MODE),
    "bash-mode-draft": Expected(BASH_MODE, "ls -l"),
    "bash-mode-long": Expected(BASH_MODE, FRAMED),
    # Enter would choose.
    "trust": Expected(DIALOG),
    "bypass-warning": Expected(DIALOG),
    "api-key": Expected(DIALOG),
    "settings-warning": Expected(DIALOG),
    "limit-seven": Expected(DIALOG),  # a weekly limit: "What do you want to do?"
    "permission": Expected(DIALOG),
    "question": Expected(DIALOG),
    "model": Expected(DIALOG),
    "help": Expected(DIALOG),
    "config": Expected(DIALOG),
    # Keys go nowhere, or to somebody else.
    "transcript": Expected(OTHER),  # ctrl+o, with a quoted composer in it
    "transcript-busy": Expected(OTHER),
    "search": Expected(OTHER),  # ctrl+r: the classic renderer keeps a composer on the screen
    "search-match": Expected(OTHER),
    "search-none": Expected(OTHER),
    "editor": Expected(OTHER),  # ctrl+g: vim
    "shell": Expected(OTHER),
    "suspended": Expected(OTHER),  # ctrl+z
    "killed-in-shell": Expected(OTHER),  # kill -9: the shell's prompt overwrites the last frame
}

EXCEPTIONS = {
    # The fullscreen search is drawn as a dialog, and says "Esc to cancel".
    "search-80x24-fullscreen": Expected(DIALOG),
    "search-40x15-fullscreen": Expected(DIALOG),
    "search-200x50-fullscreen": Expected(DIALOG),
    "search-match-80x24-fullscreen": Expected(DIALOG),
    "search-none-80x24-fullscreen": Expected(DIALOG),
    # So small that the dialog's own footer is scrolled away.
    "help-40x15-fullscreen": Expected(OTHER),
    # The help is higher than the pane, and has pushed the composer out.
    "shortcuts-40x15-classic": Expected(OTHER),
    # The cursor stands above the part that the pane shows.
    "long-middle-80x24-classic": Expected(OTHER),
}


def _situation(capture: Path) -> str:
    return re.sub(r"-\d+x\d+-(fullscreen|classic)$", "", capture.stem)


def _expected(capture: Path) -> Expected:
    return EXCEPTIONS.get(capture.stem) or SITUATIONS[_situation(capture)]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.stem)
def test_a_real_capture_is_read_as_what_it_shows(capture: Path) -> None:
    expected = _expected(capture)

    screen = read(capture.read_text())

    assert (screen.kind, screen.busy) == (expected.kind, expected.busy)
    if isinstance(expected.draft, str):
        assert screen.draft == expected.draft
    else:
        assert expected.draft.fullmatch(screen.draft)


def test_every_situation_has_its_captures() -> None:
    assert {_situation(capture) for capture in CAPTURES} == set(SITUATIONS)
    assert {capture.stem for capture in CAPTURES} >= set(EXCEPTIONS)


def test_a_draft_of_several_lines_is_given_as_typed() -> None:
    capture = Path(__file__).parent / "screens" / "multiline-80x24-fullscreen.ansi"

    assert read(capture.read_text()).draft == (
        "[msg 17 from orchestrator]\n"
        "Please look at the login page and say what is missing there.\n"
        "Then run the tests.\n"
        "[end of msg 17]"
    )


TYPABLE = [c for c in CAPTURES if _expected(c).kind in (ScreenKind.COMPOSER, ScreenKind.BASH_MODE)]


@pytest.mark.parametrize("capture", TYPABLE, ids=lambda capture: capture.stem)
@pytest.mark.parametrize(
    "around",
    [
        "{}$ ",  # a shell that has printed the capture
        "{}me@host:~$ vim notes\n",
        "{}\x1b[7m(END)\x1b[27m",  # a pager
        "{}~\n~\n",  # vi
        "{}-- VISUAL --",
        "{}Pane is dead (status 0, Mon Jan  5 10:00:00 2026)",
    ],
)
def test_a_composer_that_something_else_has_drawn_over_is_not_one(around: str, capture: Path) -> None:
    screen = read(around.format(capture.read_text()))

    assert screen.kind not in (ScreenKind.COMPOSER, ScreenKind.BASH_MODE)


@pytest.mark.parametrize("capture", TYPABLE, ids=lambda capture: capture.stem)
def test_a_composer_in_an_answer_is_not_one_below_the_transcript_view(capture: Path) -> None:
    quoted = "\n".join("  " + line for line in capture.read_text().split("\n"))
    footer = "\x1b[0m\x1b[2m" + "─" * 80 + "\n\x1b[0m  Showing detailed transcript · ctrl+o to toggle\n"

    assert read("● It looks like this:\n" + quoted + "\n" + footer).kind is ScreenKind.OTHER


RULE = "─" * 40


@pytest.mark.parametrize(
    ("capture", "screen"),
    [
        # Without any attributes: a rehearsal agent's composer.
        (f"{RULE}\n❯\xa0\n{RULE}\n", Screen(ScreenKind.COMPOSER, "", False)),
        (f"{RULE}\n❯\xa0half typed\n{RULE}\n", Screen(ScreenKind.COMPOSER, "half typed", False)),
        # Blanks alone are no draft.
        (f"{RULE}\n❯\xa0  \n  \n{RULE}\n", Screen(ScreenKind.COMPOSER, "", False)),
        # One letter, with the cursor on it.
        (f"{RULE}\n❯\xa0\x1b[7my\x1b[0m\n{RULE}\n", Screen(ScreenKind.COMPOSER, "y", False)),
        # A suggestion after what was typed: only the typed part is a draft.
        (
            f"{RULE}\n❯\xa0run \x1b[7mt\x1b[0;2mhe tests\x1b[0m\n{RULE}\n",
            Screen(ScreenKind.COMPOSER, "run", False),
        ),
        # The numbers of a colour are not attributes: 2 is not dim here, 7 is not a cursor.
        (
            f"{RULE}\n❯\xa0\x1b[38;5;2mgreen \x1b[48;2;7;2;7mtext\x1b[0m\n{RULE}\n",
            Screen(ScreenKind.COMPOSER, "green text", False),
        ),
        # A prompt of zsh or starship: an ordinary space, and no rule below.
        (f"{RULE}\n❯ ", Screen(ScreenKind.OTHER, "", False)),
        (f"{RULE}\n❯ ls\n{RULE}\n", Screen(ScreenKind.OTHER, "", False)),
        # One rule only: the capture was cut, or it is no composer.
        (f"❯\xa0\n{RULE}\n", Screen(ScreenKind.OTHER, "", False)),
        (f"{RULE}\n❯\xa0\n", Screen(ScreenKind.OTHER, "", False)),
        # Two rules with nothing between them; nothing at all.
        (f"{RULE}\n{RULE}\n", Screen(ScreenKind.OTHER, "", False)),
        ("", Screen(ScreenKind.OTHER, "", False)),
        # A search whose cursor is hidden, because the pane is in the background.
        (f"{RULE}\n❯\xa0\n{RULE}\n  search prompts: log\n", Screen(ScreenKind.OTHER, "", False)),
        (f"{RULE}\n❯\xa0\n{RULE}\n  no matching prompt: log\n", Screen(ScreenKind.OTHER, "", False)),
        # Some other field below has the cursor.
        (f"{RULE}\n❯\xa0\n{RULE}\n  find: \x1b[7m \x1b[0m\n", Screen(ScreenKind.OTHER, "", False)),
        # The lower rule is the dim one of the transcript view.
        (f"{RULE}\n❯\xa0\n\x1b[2m{RULE}\x1b[0m\n  Showing all\n", Screen(ScreenKind.OTHER, "", False)),
        # A retry, in a pane so narrow that the footer does not say it.
        (
            f"✻ 529 Overloaded · retrying in 3s · attempt 5/10\n{RULE}\n❯\xa0\n{RULE}\n  · esc t…\n",
            Screen(ScreenKind.COMPOSER, "", True),
        ),
        # The line that a finished turn leaves there is no spinner.
        (
            f"✻ Cooked for 4s · done 11:47 PM\n\n{RULE}\n❯\xa0\n{RULE}\n",
            Screen(ScreenKind.COMPOSER, "", False),
        ),
    ],
)
def test_a_small_screen(capture: str, screen: Screen) -> None:
    assert read(capture) == screen


TAIL = "[end of msg 17]"


@pytest.mark.parametrize(
    ("draft", "is_there"),
    [
        ("[msg 17 from developer]\ndone\n[end of msg 17]", True),
        ("[end of msg 17]", True),
        # Wrapped at a word, and in the middle of one.
        ("done\n[end of\nmsg 17]", True),
        ("done\n[end of m\nsg 1\n7]", True),
        # Another message; a longer number; something was typed behind it; not there yet.
        ("done\n[end of msg 18]", False),
        ("done\n[end of msg 117]", False),
        ("done\n[end of msg 17] and", False),
        ("done\n[end of msg", False),
        ("", False),
    ],
)
def test_the_tail_of_a_draft(draft: str, is_there: bool) -> None:
    assert ends_with_line(draft, TAIL) is is_there


def test_a_blank_line_is_the_tail_of_nothing() -> None:
    assert not ends_with_line("done", " ")


def _hung(seconds: str, tokens: str = "↓ 46 tokens", glyph: str = "✻", bullet: str = "●", more: str = "") -> str:
    """As captured from 2.1.330 while a request hung: what is said changes, and means nothing."""
    return (
        f"❯ Think hard\n\n{bullet} Running sleep 600\n  ⎿  $ sleep 600 ({seconds} · timeout 10m)\n{more}\n\n"
        f"{glyph} Seasoning… ({seconds} · {tokens})\n  ⎿  Tip: at {seconds}\n\n"
        f"{RULE}\n❯\xa0\n{RULE}\n  ⏵⏵ bypass permissions on · esc to interrupt {seconds}\n"
    )


class TestWithoutClock:
    @pytest.mark.parametrize(
        ("later", "shows_progress"),
        [
            (_hung("5s"), False),
            # The clock runs, the spinner turns, a bullet blinks.
            (_hung("1m 50s"), False),
            (_hung("2h 3m 4s", glyph="·"), False),
            (_hung("7s", bullet=" "), False),
            # The model speaks.
            (_hung("5s", tokens="↓ 47 tokens"), True),
            (_hung("5s", tokens="↓ 1.2k tokens"), True),
            # The count is there, the direction has changed.
            (_hung("9s", tokens="↑ 46 tokens"), False),
            # A command prints something.
            (_hung("5s", more="     3 passed"), True),
        ],
    )
    def test_a_later_look(self, later: str, shows_progress: bool) -> None:
        assert (without_clock(later) != without_clock(_hung("5s"))) is shows_progress

    def test_what_a_person_types_is_no_progress(self) -> None:
        typed = _hung("5s").replace("❯\xa0", "❯\xa0half a thought")
        assert without_clock(typed) == without_clock(_hung("5s"))

    def test_a_retry_counts_its_attempts(self) -> None:
        screen = f"❯ say\n\n✻ 529 Overloaded · retrying in 3s · attempt 5/10\n{RULE}\n❯\xa0\n{RULE}\n"
        assert without_clock(screen) == without_clock(screen.replace("3s", "1s"))
        assert without_clock(screen) != without_clock(screen.replace("5/10", "6/10"))

    @pytest.mark.parametrize("capture", [c for c in CAPTURES if _expected(c).busy], ids=lambda capture: capture.stem)
    def test_a_real_capture_a_minute_later(self, capture: Path) -> None:
        shown = capture.read_text()
        later = re.sub(r"\((\d)s", r"(1m 0\1s", shown)
        assert later != shown or "retrying" in capture.stem
        assert without_clock(later) == without_clock(shown)
        assert "Tip:" not in without_clock(shown) and "interrupt" not in without_clock(shown)
        if "tokens" in shown:
            assert without_clock(re.sub(r"(\d+) tokens", r"9\1 tokens", shown)) != without_clock(shown)

    def test_a_rehearsal(self) -> None:
        screen = (
            f"❯ work\n● done with one\n\n✽ Rehearsing… (5s)\n{RULE}\n❯\xa0\n{RULE}\n  rehearsal · esc to interrupt\n"
        )
        queued = screen.replace("(5s)", "(65s)\n  ⎿ Queued: [msg 3 from user]")
        assert without_clock(screen) == without_clock(queued) == "❯ work\ndone with one"

    def test_what_is_no_composer_is_taken_as_a_whole(self) -> None:
        assert without_clock("a transcript view\n  line 2 (took 5s)\n") == "a transcript view\nline 2 (took )"


def capture(situation: str) -> str:
    return next(path for path in CAPTURES if path.name.startswith(situation)).read_text()


class TestLimits:
    @pytest.mark.parametrize("renderer", ["classic", "fullscreen"])
    def test_what_stands_below_the_composer_or_in_the_dialog(self, renderer: str) -> None:
        assert limit(capture(f"limit-five-80x24-{renderer}")) == "Usage limit reached · limit resets 1:02am"
        assert limit(capture(f"limit-seven-80x24-{renderer}")) == "resets Nov 26, 12:02am"

    @pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
    def test_no_other_window_shows_one(self, path: Path) -> None:
        is_limit = path.name.startswith("limit-")
        assert (limit(path.read_text()) is not None) is is_limit
        assert has_limit_dialog(path.read_text()) is path.name.startswith("limit-seven")

    def test_what_was_said_before_is_no_limit(self) -> None:
        # An answer that quotes all of it, above an empty composer.
        quoted = "\n".join(f"  {line}" for line in capture("limit-five-80x24-classic").split("\n")[-6:])
        dialog = (
            "  What do you want to do?\n  ❯ 1. Stop and wait for limit to reset\n  Enter to confirm · Esc to cancel"
        )
        shown = f"● {quoted}\n{dialog}\n{capture('empty-')}"
        assert read(shown).kind is COMPOSER
        assert limit(shown) is None and not has_limit_dialog(shown) and continues_by_itself(shown) is False

    def test_a_dialog_in_an_answer_is_none_although_escape_is_offered_below(self) -> None:
        rows = capture("limit-five-80x24-classic").rstrip("\n").split("\n")
        rule = next(number for number, row in enumerate(rows) if "────" in row)
        rows[rule:rule] = [
            "  ❯ 1. Stop and wait for limit to reset",
            "  2. Wait here, then continue automatically at 9pm",
        ]
        assert not has_limit_dialog("\n".join(rows))
        assert limit("\n".join(rows)) == "Usage limit reached · limit resets 1:02am"

    def test_whether_the_client_goes_on_by_itself(self) -> None:
        five = capture("limit-five-80x24-classic")
        assert continues_by_itself(five) is True
        assert continues_by_itself(five.replace("Continuing automatically at 1:02am", "Continuing shortly")) is True
        assert continues_by_itself(capture("empty-")) is False
        assert continues_by_itself(capture("limit-seven-80x24-classic")) is None


# -- questions --


def asked(name: str) -> Dialog | None:
    return dialog((Path(__file__).parent / "screens" / f"{name}.ansi").read_text(encoding="utf-8"))


@pytest.mark.parametrize("renderer", ["classic", "fullscreen"])
@pytest.mark.parametrize("size", ["40x15", "80x24", "200x50"])
class TestAQuestion:
    def test_a_permission_has_its_choices(self, size: str, renderer: str) -> None:
        found = asked(f"permission-{size}-{renderer}")
        assert found and "rm -rf build" in found.text and "Do you want to proceed?" in found.text
        assert [one.key for one in found.choices] == ["1", "2", "3", "4"]
        assert found.choices[0].text == "Yes" and found.choices[3].text == "No"
        assert found.choices[1].text.startswith("Yes, and always allow access to")

    def test_a_choice_that_takes_a_text_is_none_for_a_key(self, size: str, renderer: str) -> None:
        found = asked(f"question-{size}-{renderer}")
        assert found and "Which database?" in found.text
        assert [(one.key, one.text) for one in found.choices] == [("1", "SQLite A file"), ("2", "Postgres A server")]


@pytest.mark.parametrize("name", ["empty", "busy", "draft", "shell", "editor", "transcript", "quoted", "help"])
def test_what_asks_nothing_is_no_question(name: str) -> None:
    assert asked(f"{name}-80x24-classic") is None
    assert asked(f"{name}-80x24-fullscreen") is None
