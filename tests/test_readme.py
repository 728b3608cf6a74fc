"""Documentation that cannot fall behind: the real scripts parse every command line that a reader may copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import doors
from tests.conftest import ROOT

README = ROOT / "README.md"
CONTRACT = Path(__file__).with_name("original_commands.txt")
SHELLS = ("", "bash", "sh", "shell", "console")


def contract() -> list[str]:
    lines = CONTRACT.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def refusal(call: doors.Line) -> str | None:
    try:
        call.check()
    except doors.Refused as refused:
        return refused.words
    return None


def commands_in(text: str) -> Iterator[str]:
    """The command lines of a Markdown text's code blocks: continued lines joined; of a console only what is typed."""
    for block in re.finditer(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```", text, re.DOTALL | re.M):
        if block["language"] not in SHELLS:
            continue
        lines = block["code"].replace("\\\n", " ").splitlines()
        typed = [line.strip() for line in lines if line.strip()]
        if any(line.startswith("$ ") for line in typed):
            typed = [line for line in typed if line.startswith("$ ")]
        for line in typed:
            command = line.removeprefix("$ ")
            if not command.startswith("#") and (block["language"] or re.match(r"(\./)?[\w./-]+\.(py|sh)\b", command)):
                yield command


def readme_calls() -> list[tuple[str, doors.Line]]:
    if not README.exists():
        return []
    commands = list(dict.fromkeys(commands_in(README.read_text(encoding="utf-8"))))
    return [(command, call) for command in commands for call in doors.calls(command)]


def test_the_readme_shows_how_to_begin() -> None:
    assert README.exists(), "there is no README.md"
    scripts = {call.script for _, call in readme_calls()}
    assert {"setup.sh", "auto_orchestrate.py", "claude_control.py"} <= scripts


@pytest.mark.parametrize(("command", "call"), readme_calls(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_of_the_readme_is_parsed(command: str, call: doors.Line) -> None:
    assert refusal(call) is None, command


@pytest.mark.parametrize("command", contract())
def test_a_command_of_the_contract_is_parsed(command: str) -> None:
    (call,) = doors.calls(command)
    assert refusal(call) is None


def test_the_contract_is_whole() -> None:
    assert len(contract()) == 148


REFUSED = [
    # The number of a check-in is a number.
    ("scheduler.py", ["--remove", "x"]),
    # A verb that is none.
    ("claude_control.py", ["dance"]),
    # A verb without its target.
    ("claude_control.py", ["send"]),
    ("send-claude-message.sh", []),
    # A choice that is none.
    ("auto_orchestrate.py", ["--plan", "max7"]),
    # A shell script's own options.
    ("setup.sh", ["--everything"]),
]


@pytest.mark.parametrize(("script", "words"), REFUSED)
def test_wrong_words_are_refused(script: str, words: list[str]) -> None:
    with pytest.raises(doors.Refused):
        doors.parse(ROOT / script, words)


TAKEN = [
    "scheduler.py --add SESSION ROLE WINDOW MINUTES NOTE",
    'schedule_with_note.sh 30 "note" "target"',
    "setup.sh --non-interactive",
    # A message that begins like an option, in one word with white space.
    'send-claude-message.sh webapp-impl:1 "-x means remove"',
]


@pytest.mark.parametrize("command", TAKEN)
def test_forms_that_must_be_taken(command: str) -> None:
    (call,) = doors.calls(command)
    call.check()


LINES = [
    # The program is found behind variables, sudo and uv run; what the shell takes is no word of it.
    ("PROJECTS_DIR=~/x ./setup.sh", [("setup.sh", ())]),
    ("sudo ./systemd/install.sh $USER", [("systemd/install.sh", ("$USER",))]),
    ("uv run scheduler.py --list &", [("scheduler.py", ("--list",))]),
    ("./a.py --json > out.json", [("a.py", ("--json",))]),
    ("git diff | ./a.py send x -", [("a.py", ("send", "x", "-"))]),
    ("cd here && ./a.py && ./b.sh", [("a.py", ()), ("b.sh", ())]),
    # A comment, and quotes.
    ("./a.py 'one two' # three", [("a.py", ("one two",))]),
    # Somebody else's command.
    ("tmux attach -t webapp-impl", []),
    ("python -m pytest tests/test_x.py", []),
]


@pytest.mark.parametrize(("line", "found"), LINES)
def test_calls_are_found_in_a_line_of_shell(line: str, found: list[tuple[str, tuple[str, ...]]]) -> None:
    assert [(call.script, call.words) for call in doors.calls(line)] == found


def test_commands_are_found_in_markdown() -> None:
    text = (
        "```bash\n# not this\n./a.py \\\n  --x\ncd y\n```\n"
        "```console\n$ ./b.py\nprinted.py\n```\n"
        "```\nprinted\n./c.sh 1\n```\n"
        "```python\n./d.py\n```\n"
    )
    assert list(commands_in(text)) == ["./a.py    --x", "cd y", "./b.py", "./c.sh 1"]
