"""What it costs to write the texts that an agent begins with."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.machine import rehearsal
from benchmarks.teams import Counts
from lib import agents, analysis, briefing, host, insights, orchestrations, store, templates
from lib.judgement.analyses import Analysis
from tests.agents import a_team

_INSIGHTS = 1_000
_ROLES = ("orchestrator", "developer", "tester", "testrunner", "project_manager")


def briefings(counts: Counts) -> list[Figure]:
    """A team of five with thirty criteria, an analysis and a thousand insights; the templates are compiled before."""
    criteria = "".join(f"- criterion {one} holds [check: pytest -k criterion_{one}]\n" for one in range(30))
    with rehearsal() as machine:
        db = machine.db()
        team = a_team(db, *_ROLES, home=machine.home)
        assert team[0].orchestration_id
        with store.writing(db):
            spec = f"# Greeting\n\nGOAL: Say hello.\n\nSUCCESS CRITERIA:\n{criteria}"
            db.execute("UPDATE orchestrations SET spec_text = ?", (spec,))
            tasks = dict.fromkeys(_ROLES, ("Say hello.", "Say goodbye."))
            found = Analysis("A greeting.", ("It greets",), dict.fromkeys(_ROLES, "needed"), tasks, ("None",), "medium")
            analysis.record(db, team[0].orchestration_id, analysis.Asked(found), now=host.now_ms())
        for one in range(_INSIGHTS):
            text = f"The greeting of module {one} says hello."
            insights.add(db, text, project=None, tags=("greeting",), author="a person", now=host.now_ms())
        orchestration, places = orchestrations.get(db, team[0].orchestration_id), briefing.Places(Path("s"), Path("p"))
        role, mates, gathered, rendered = (
            templates.roles()["tester"],
            agents.of_orchestration(db, team[0].orchestration_id),
            [],
            [],
        )
        for _ in range(counts.messages):
            began = time.perf_counter()
            told = briefing.matter(db, orchestration)
            gathered.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            briefing.stable_part(mates[2], role)
            briefing.task_part(orchestration, mates[2], mates, places, told)
            rendered.append(1000 * (time.perf_counter() - began))
    return [
        Figure("what a briefing tells, gathered from the store with 1,000 insights", "ms", tuple(gathered)),
        Figure("both texts of a briefing, rendered", "ms", tuple(rendered), target=5.0, headline=True),
    ]
