"""Verbs about work that is done: complete."""

from __future__ import annotations

import click

from lib import agents, cli, delivery, host, orchestrations
from lib.cli import Output
from lib.control import main
from lib.control.desk import caller, ensure_scheduler
from lib.control.mail import message_text
from lib.errors import NotFound
from lib.models import AgentState

#: The orchestrator is often busy: its report is recorded, and whoever delivers next brings it.
_REPORT_WAIT_SECONDS = 1.0


@cli.verb(
    main,
    examples="""
    claude_control.py complete developer "Login endpoint and its tests are committed"
    """,
    text_arguments=True,
)
@click.argument("role")
@click.argument("words", metavar="MESSAGE", nargs=-1)
@click.option("--session", metavar="SESSION", help="The team, when it cannot be told from where this runs.")
@cli.pass_output
def complete(output: Output, role: str, words: tuple[str, ...], session: str | None) -> None:
    """Report that a role's part is done; the Orchestrator's report completes the orchestration."""
    from lib import reports  # noqa: PLC0415 - asks git, which the other verbs need not

    desk = caller()
    team = agents.of_orchestration(desk.db, agents.team_of(desk.db, session, desk.agent))
    agent = next((mate for mate in team if mate.role == role), None)
    if agent is None:
        raise NotFound(f"no role {role!r} in {team[0].session}", hint=f"roles: {', '.join(mate.role for mate in team)}")
    message = reports.complete(desk.db, agent, message_text(words), sender=desk.name, now=host.now_ms())
    found = orchestrations.of_agent(desk.db, agent)
    if message is None:
        text = f"recorded: {role} is done; the orchestration {found.session} is {found.status}"
    else:
        hub = agents.get(desk.db, message.agent_id)
        if agents.state_of(hub) is not AgentState.GONE:
            delivery.deliver(desk, hub, until=message.id, wait_seconds=_REPORT_WAIT_SECONDS)
        text = f"recorded: {role} is done; reported to {hub.target}"
        ensure_scheduler(output, desk)
    output.answer(text, {"role": role, "session": found.session, "orchestration": found.status})
