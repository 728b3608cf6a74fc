"""A batch file as values: what its lines come to, and how everything wrong in it is told at once."""

from __future__ import annotations

from typing import Any

import pytest

from lib.errors import OrchestratorError
from lib.judgement.batchfile import Wanted, parse

PARSED: list[tuple[object, Wanted]] = [
    # The least.
    ({"specs": [{"spec": "a.md"}]}, Wanted("a.md", number=1)),
    # Every line of an entry.
    (
        {
            "specs": [
                {
                    "spec": "~/specs/*.md",
                    "project": "../webapp",
                    "plan": "max5",
                    "size": "large",
                    "team_type": "web_application",
                    "roles": ["orchestrator", "developer"],
                    "agent": "rehearsal",
                    "tags": ["shop", "two words"],
                    "priority": -3,
                    "budget_minutes": 90,
                }
            ]
        },
        Wanted(
            spec="~/specs/*.md",
            project="../webapp",
            options={
                "roles": ["orchestrator", "developer"],
                "team_type": "web_application",
                "size": "large",
                "plan": "max5",
                "agent": "rehearsal",
            },
            tags=("shop", "two words"),
            priority=-3,
            budget_minutes=90,
            number=1,
        ),
    ),
    # What the defaults say holds until the entry says it.
    (
        {"defaults": {"size": "small", "priority": 2, "tags": ["x"]}, "specs": [{"spec": "a.md", "priority": 5}]},
        Wanted("a.md", options={"size": "small"}, tags=("x",), priority=5, number=1),
    ),
    # An entry's own word about its project comes before the defaults' other word.
    (
        {"defaults": {"project": "webapp"}, "specs": [{"spec": "a.md", "new_project": True}]},
        Wanted("a.md", new_project=True, number=1),
    ),
    (
        {"defaults": {"new_project": True}, "specs": [{"spec": "a.md", "project": "webapp"}]},
        Wanted("a.md", project="webapp", number=1),
    ),
    # An empty line is none, and so are empty defaults.
    ({"defaults": None, "specs": [{"spec": "a.md", "project": None, "roles": None}]}, Wanted("a.md", number=1)),
]


@pytest.mark.parametrize(("content", "wanted"), PARSED)
def test_an_entry(content: object, wanted: Wanted) -> None:
    assert parse(content, "batch.yaml") == (wanted,)


def test_entries_keep_their_order_and_numbers() -> None:
    found = parse({"specs": [{"spec": name} for name in "cab"]}, "batch.yaml")
    assert [(one.spec, one.number) for one in found] == [("c", 1), ("a", 2), ("b", 3)]


def entry(**lines: Any) -> dict[str, Any]:
    return {"specs": [{"spec": "a.md"}, {"spec": "b.md", **lines}]}


WRONG: list[tuple[object, str]] = [
    # No batch file at all.
    (None, "it must hold `name: value` lines, not nothing"),
    ([], "it must hold `name: value` lines, not an empty list"),
    ("specs", "it must hold `name: value` lines, not 'specs'"),
    ({}, "`specs:` must be a list of entries"),
    ({"specs": []}, "`specs:` must be a list of entries"),
    ({"specs": {"spec": "a.md"}}, "`specs:` must be a list of entries"),
    # A line that nobody knows, with the one that was meant.
    ({"spec": [{"spec": "a.md"}]}, "it has an unknown line 'spec'; did you mean 'specs'?"),
    (entry(budget_minute=5), "entry 2 has an unknown line 'budget_minute'; did you mean 'budget_minutes'?"),
    (entry(colour="red"), "entry 2 has an unknown line 'colour'; known are spec, project, new_project,"),
    ({"defaults": {"spec": "a.md"}, "specs": [{"spec": "a.md"}]}, "defaults has an unknown line 'spec'; known are"),
    ({"defaults": {5: 1}, "specs": [{"spec": "a.md"}]}, "defaults has an unknown line '5'"),
    # An entry that is none.
    ({"specs": ["a.md"]}, "entry 1 must hold `name: value` lines, not 'a.md'"),
    ({"specs": [{"project": "webapp"}]}, "entry 1 names no spec"),
    # Wrong types, each with the number of its entry.
    (entry(spec=5), "entry 2: spec must be a path, not 5"),
    (entry(spec=""), "entry 2: spec must be a path, not ''"),
    (entry(spec="a\nb"), "entry 2: spec must be a path"),
    (entry(spec="a\0b"), "entry 2: spec must be a path"),
    (entry(project=["webapp"]), "entry 2: project must be a path, not this list"),
    (entry(new_project="yes"), "entry 2: new_project must be true or false, not 'yes'"),
    (entry(plan="gold"), "entry 2: plan must be one of pro, max5, max20, console, not 'gold'"),
    (entry(size=3), "entry 2: size must be one of small, medium, large, not 3"),
    (entry(agent="robot"), "entry 2: agent must be one of claude, rehearsal, not 'robot'"),
    (entry(agent=["claude"]), "entry 2: agent must be one of claude, rehearsal, not this list"),
    (entry(roles="developer,tester"), "entry 2: roles must be a list of roles, not 'developer,tester'"),
    (entry(roles=[]), "entry 2: roles must be a list of roles, not an empty list"),
    (entry(roles=[["developer"]]), "entry 2: roles must be a list of roles"),
    (entry(tags=[1]), "entry 2: tags must be a list of texts"),
    (entry(tags=["a\x1b[31m"]), "entry 2: tags must be a list of texts"),
    (entry(priority=True), "entry 2: priority must be a whole number from -1000 to 1000, not True"),
    (entry(priority=1.5), "entry 2: priority must be a whole number"),
    (entry(priority=10**30), "entry 2: priority must be a whole number"),
    (entry(budget_minutes=0), "entry 2: budget_minutes must be a whole number from 1 to 1000000, not 0"),
    # Two words that exclude each other.
    (entry(project="webapp", new_project=True), "entry 2 has both a project and new_project"),
    # The defaults have types too.
    ({"defaults": {"priority": "high"}, "specs": [{"spec": "a.md"}]}, "defaults: priority must be a whole number"),
]


@pytest.mark.parametrize(("content", "sentence"), WRONG)
def test_what_is_wrong_is_told(content: object, sentence: str) -> None:
    with pytest.raises(OrchestratorError) as raised:
        parse(content, "batch.yaml")
    assert f"batch.yaml: {sentence}" in raised.value.sentence
    assert raised.value.hint


def test_all_that_is_wrong_is_told_at_once() -> None:
    content = {"specs": [{"spec": "a.md", "sise": "small"}, {"spec": 7}, {"spec": "c.md", "priority": "high"}]}
    with pytest.raises(OrchestratorError) as raised:
        parse(content, "batch.yaml")
    told = raised.value.sentence.splitlines()
    assert told[0] == "batch.yaml cannot be taken:"
    assert ["entry 1" in told[1], "entry 2" in told[2], "entry 3" in told[3], len(told)] == [True, True, True, 4]


def test_a_value_that_is_huge_by_aliases_is_not_repeated() -> None:
    # What YAML makes of nine lines of aliases: a list that would be a thousand million long when it is written out.
    huge: list[object] = ["x"]
    for _ in range(30):
        huge = [huge, huge]
    with pytest.raises(OrchestratorError, match=r"roles must be a list of roles, not this list$"):
        parse({"specs": [{"spec": "a.md", "roles": huge}]}, "batch.yaml")
