"""Verbs about commits: where one comes from (why), and what git has refused (audit)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib import agents, host, orchestrations
from lib.errors import NotFound
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller
from lib.front.times import time_of
from lib.models import Event, Message, MessageKind

if TYPE_CHECKING:
    from lib.provenance import Origin

_LONGEST = 88
_AUDIT = {"guard.refused": "refused", "guard.unverified": "around the checks"}


@cli.verb(
    main,
    examples="""
    claude_control.py why 4f2c1a9
    claude_control.py why HEAD --project ~/projects/webapp
    """,
)
@click.argument("commit")
@click.option(
    "--project", type=click.Path(path_type=Path), metavar="PATH", help="The repository (default: where you stand)."
)
@cli.pass_output
def why(output: Output, commit: str, project: Path | None) -> None:
    """Tell where an agent's commit comes from: the message it worked on, and so on back to the spec."""
    from lib import provenance  # noqa: PLC0415 - asks git, which the other verbs need not
    from lib.git import worktrees  # noqa: PLC0415 - asks git, which the other verbs need not

    place = worktrees.project_root((project or host.working_folder()).expanduser())
    found = provenance.why(caller().db, place, commit)
    output.answer("\n".join(_story(found)), _data(found))


def _story(found: Origin) -> list[str]:
    team, commit = found.orchestration, found.commit
    lines = [
        f"{commit.id[:10]}  {commit.subject}",
        f"  by {found.agent.target} (orchestration {team.id}), {_time(commit.at)}",
    ]
    lines += [_step(number, step) for number, step in enumerate(found.steps)]
    return [*lines, f"  from the spec: {team.spec_title} ({team.spec_path})"]


def _step(number: int, step: Message) -> str:
    link = "at work on" if number == 0 else "which came of"
    what = "its briefing" if step.kind is MessageKind.BRIEFING else f"message {step.id} from {step.sender}"
    first = next((line.strip() for line in step.body.splitlines() if line.strip()), "")
    line = f"  {link} {what} ({_time(step.acknowledged_at or step.queued_at)})"
    if step.kind is not MessageKind.BRIEFING:
        line += f": {first}"
    return line if len(line) <= _LONGEST + 32 else f"{line[: _LONGEST + 29]}..."


def _data(found: Origin) -> dict[str, Any]:
    return {
        "commit": found.commit.id,
        "subject": found.commit.subject,
        "at": found.commit.at,
        "orchestration": found.orchestration.id,
        "session": found.orchestration.session,
        "role": found.agent.role,
        "messages": [
            {"id": step.id, "sender": step.sender, "kind": step.kind, "at": step.queued_at, "body": step.body}
            for step in found.steps
        ],
        "spec": str(found.orchestration.spec_path),
        "title": found.orchestration.spec_title,
    }


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")


@cli.verb(
    main,
    examples="""
    claude_control.py audit
    claude_control.py audit webapp-impl --since 2h --json
    """,
)
@click.argument("session", required=False)
@click.option("--since", metavar="TIME", default="1d", help="1d, 2h, 30m, or an ISO time (default 1d).")
@cli.pass_output
def audit(output: Output, session: str | None, since: str) -> None:
    """Show what git has refused to agents, and where they went around its checks."""
    from lib import boundaries  # noqa: PLC0415 - the view's own room

    db, start = caller().db, time_of(since, now=host.now_ms())
    teams = orchestrations.named(db, session) if session else orchestrations.every(db)
    if session and not teams:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    roles = {agent.id: agent.target for team in teams for agent in agents.of_orchestration(db, team.id)}
    found = boundaries.audit(db, [team.id for team in teams], since=start)
    lines = [_audit_line(event, roles) for event in found]
    output.answer("\n".join(lines) or "nothing was refused", [_audit_data(event, roles) for event in found])


def _audit_line(event: Event, roles: dict[int, str]) -> str:
    who = roles.get(event.agent_id or 0, "")
    new = str(event.data.get("new", ""))[:10] or "deleted"
    return f"{_time(event.at)}  {who:36}  {_AUDIT[event.kind]:17}  {event.data['ref']} -> {new}"


def _audit_data(event: Event, roles: dict[int, str]) -> dict[str, Any]:
    kind = event.kind.partition(".")[2]
    return {"at": event.at, "agent": roles.get(event.agent_id or 0), "kind": kind, **event.data}
