"""claude_control.py: its verbs, a module for each kind of them."""

from __future__ import annotations

from lib.front import cli

#: Which module of this folder has which verbs.
VERBS = {
    "budget": ("budget",),
    "commits": ("why", "audit"),
    "costs": ("costs",),
    "criteria": ("criteria",),
    "doctor": ("doctor",),
    "fleet": ("fleet",),
    "handovers": ("handovers",),
    "hub": ("compliance",),
    "insights": ("insight", "related"),
    "mail": ("send", "inbox", "messages", "resend"),
    "monitor": ("monitor",),
    "progress": ("complete", "depend", "request-authorization", "authorize"),
    "replay": ("replay",),
    "report": ("report",),
    "team": ("status", "attach", "screen", "answer", "pause", "resume", "stop"),
    "timeline": ("timeline", "moment"),
}


@cli.group(
    examples="""
    claude_control.py status
    claude_control.py send webapp-impl:developer "What is left to do?"
    claude_control.py attach webapp-impl:tester
    claude_control.py costs webapp-impl
    claude_control.py stop webapp-impl
    """,
    modules={verb: f"{__name__}.{module}" for module, verbs in VERBS.items() for verb in verbs},
)
def main() -> None:
    """See the agents and talk to them."""
