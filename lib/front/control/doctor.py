"""The verb that looks whether all is there that a team stands on: doctor."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from lib import config, host, store
from lib.errors import ExitCode, NotFound, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.tmux import Tmux

if TYPE_CHECKING:
    from lib.checkup import Finding
    from lib.probing import Result


@cli.verb(
    main,
    examples="""
    claude_control.py doctor
    claude_control.py doctor --probe
    claude_control.py doctor --force
    claude_control.py doctor --json
    """,
)
@click.option("--probe", is_flag=True, help="Also try the installed Claude Code, against a scripted model of our own.")
@click.option("--force", is_flag=True, help="Use the installed version unattended although its last probe has failed.")
@cli.pass_output
def doctor(output: Output, probe: bool, force: bool) -> int:
    """Look at all that a team stands on, and name the command that mends what is wrong.

    That is tools, login, settings, state home, store, scheduler and tmux; nothing of it is changed. It leaves
    with 1 when something that is needed is missing or wrong, and with 5 when nothing is, but something could not be
    looked at. --probe uses no account and takes half a minute: docs/doctor.md.
    """
    from lib import checkup  # noqa: PLC0415 - the verbs beside this one need it not

    if force:
        if probe:
            raise Usage("--force is about the last probe: probe first, then force")
        return _force(output)
    home, findings = config.state_home(), []
    # The probe comes first: what it has found belongs to the check-up.
    results = _probed(output) if probe else []
    for one in checkup.look(home, Tmux.from_environment(), now=host.now_ms()):
        findings.append(one)
        if not output.json:
            click.echo(_line(one))
    output.answer("", {"findings": [vars(one) for one in findings], "probe": [vars(one) for one in results]})
    return _exit_code(findings)


def _line(one: Finding) -> str:
    optional = "" if one.is_needed else ", optional"
    line = f"{one.name:16} {f'{one.state}{optional}':22} {_plain(one.said)}".rstrip()
    return f"{line}\n  next: {_plain(one.mends)}" if one.mends else line


def _plain(text: str) -> str:
    from lib.judgement import cleaning  # noqa: PLC0415 - as above

    return cleaning.one_line(text)  # what programs say of themselves is text


def _exit_code(findings: list[Finding]) -> ExitCode:
    from lib.checkup import State  # noqa: PLC0415 - as above

    states = {one.state for one in findings if one.is_needed}
    if states & {State.MISSING, State.WRONG}:
        return ExitCode.FAILED
    return ExitCode.NOT_NOW if State.UNSEEN in states else ExitCode.DONE


def _force(output: Output) -> ExitCode:
    from lib import verdicts  # noqa: PLC0415 - as above
    from lib.claude import installed  # noqa: PLC0415 - as above

    db = store.connect(config.state_home())
    known = verdicts.force(db, installed.version_of(_executable()), now=host.now_ms())
    output.answer(
        f"Claude Code {known.version} is used by the queue and the scheduler although its probe has failed"
        f" ({_plain(known.names)}), until its next probe",
        {"version": known.version, "failed": [name for name, _ in known.failed]},
    )
    return ExitCode.DONE


def _executable() -> str:
    command = config.load().claude_command
    executable = shutil.which(command)
    if executable is None:
        raise NotFound(f"no command {command!r} on PATH", hint="npm install -g @anthropic-ai/claude-code")
    return executable


def _probed(output: Output) -> list[Result]:
    """Try the installed Claude Code, tell each result, and keep the verdict on its version."""
    from lib import probing, verdicts  # noqa: PLC0415 - as above
    from lib.claude import installed  # noqa: PLC0415 - as above
    from lib.front import progress  # noqa: PLC0415 - as above

    executable = _executable()
    version = installed.version_of(executable)

    def tell(result: Result) -> None:
        if not output.json:
            click.echo(f"{f'probe: {result.name}':24} {result.verdict:14} {_plain(result.said)}".rstrip())

    with progress.waiting(output, f"Claude Code {version} is tried in a scratch folder"):
        results = probing.judge(executable, tell=tell)
    failed = [(one.name, one.said) for one in results if one.verdict is probing.Verdict.FAILS]
    verdicts.keep(store.connect(config.state_home()), version, failed, now=host.now_ms())
    return results
