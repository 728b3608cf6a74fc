"""Roles, team types and the sentences said to agents: every one loads, renders, and stays short."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import jinja2
import pytest

from lib import templates
from lib.judgement import cleaning, framing
from lib.judgement.teams import TeamType
from lib.rehearsal import play

ROLES = templates.roles()
TYPES = templates.team_types()
MESSAGES = sorted(path.name for path in (templates.FOLDER / "messages").glob("*.md"))
LONGEST_BYTES = 6_000


@dataclass(frozen=True)
class Mate:
    role: str
    target: str
    branch: str


def team(*roles: str) -> list[Mate]:
    branches = "orchestration/a1b2c3-authentication-system-v2"
    return [Mate(role, f"ecommerce-platform-impl:{role}", f"{branches}/{role}") for role in roles]


TEN = team(*list(ROLES)[:10])

#: What the rooms give to templates; a template that needs another value needs it here too.
VALUES: dict[str, object] = {
    "title": '"Authentication for the e-commerce platform"',
    "plan": None,
    "failing": (
        (
            SimpleNamespace(id="C1", text="Login works", command="pytest -q"),
            SimpleNamespace(exit_code=1, output="1 failed"),
        ),
    ),
    "open": (SimpleNamespace(id="C2", text="It looks good"),),
    "criteria": (("C1", '"Login works"', '"pytest -q"'),),
    "more_criteria": 0,
    "mates": ("tester", "testrunner"),
    "spec": "/srv/state/tmux-orchestrator/orchestrations/a1b2c3/spec.md",
    "role": "orchestrator",
    "role_text": "You lead.",
    "worktree": "/srv/projects/ecommerce-platform-tmux-worktrees/orchestrator",
    "branch": "orchestration/a1b2c3-authentication-system-v2/orchestrator",
    "starting_branch": "develop",
    "starting_commit": "0123456789abcdef0123456789abcdef01234567",
    "session": "ecommerce-platform-impl",
    "team": TEN,
    "insights": (SimpleNamespace(id=1, author="user", project=None, quoted='"Amounts are cents"'),),
    "summary": "The login endpoint works",
    "work": SimpleNamespace(branch="b", head="0" * 40, commits=2, files=("a.py", "b.py"), dirty=True),
    "check": SimpleNamespace(command="make check", exit_code=1, output="1 failed"),
    "report": SimpleNamespace(summary="The login endpoint works", branch="b", head="0" * 40),
    "on_role": "devops",
    "left": ("tester",),
    "requester": "developer",
    "target": "orchestrator",
    "what": "May I deploy?",
    "id": 3,
    "minutes": 30,
    "amount": "$20.00",
    "used": "$20.14",
    "interrupted": True,
    "kind": "five_hour",
    "host": "build-1",
    "escalates": True,
    "status": "granted",
    "decided_by": "orchestrator",
    "reason": "the tests are green",
    "away": "2 h 5 min",
    "since": "2030-01-31 08:00",
    "lines": ("2 commits by tester",),
    "mark": "data-0123456789ab",
    "tracked": "main.tf",
    "chosen": ("orchestrator", "devops"),
    "choosable": (("devops", "Builds, packages and delivers."),),
    "failures": (
        SimpleNamespace(
            name="attempt 1", reason="the API is gone", parts=(SimpleNamespace(title="the events", text="0 min  x"),)
        ),
    ),
    "files": ("a.py", "b.py"),
    "count": 2,
    "commits": ("0123456789 Parse the header",),
    "stat": " parser.py | 1 +\n 1 file changed, 1 insertion(+)",
    "parts": (("the tracked files of the project", "app.py"),),
    "roles": {"developer": "Writes the code."},
    "also": ("securityops",),
    "reads": False,
    "analysis": SimpleNamespace(summary="A login", milestones=("It logs in",), risks=("No staging",)),
    "tasks": {"developer": ("Write login.py",)},
    "size": 1200,
    "reasons": (("attempt 1", "the API is gone"),),
    "root_cause": "The staging API was switched off.",
    "category": "environment",
    "evidence": ("curl: (7) Failed to connect",),
    "advice": ("Use the recorded answers in tests/api.",),
    "questions_for_person": ("When does the API come back?",),
    "worth_retrying": False,
    "new": ("b.py",),
    "more": 3,
    "source": "develop",
    "is_rebased": True,
    "settled": ("app.py",),
    "by_hand": ("api.py",),
    "side": "the lines of the agent's branch",
    "snapshot": "developer/20300131T080000Z",
    "head": "0123456789",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "integration": "orchestration/a1b2c3-authentication-system-v2/integration",
    "why": "`pytest -q` left with 1",
    "command": "pytest -q",
    "log": "1 failed",
    "merge_base": "0123456789abcdef0123456789abcdef01234567",
    "paths": (("src/login.py", "tester in 0123456789ab"),),
    "bulletins": ('/srv/projects/shop: insight 7 by user: "Amounts are cents"',),
    "more_bulletins": 2,
    "insight": SimpleNamespace(id=7, author="user", project="/srv/projects/shop", tags=("api",)),
    "text": '"Amounts are cents"',
    "place": "/srv/projects/shop",
    "project": "/srv/projects/shop",
    "trouble": "",
    "file_count": 3,
    "before": "0123456789ab",
    "after": "ba9876543210",
}


def briefing(**changed: object) -> str:
    return templates.render("briefing.md", **{**VALUES, **changed})


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda role: role.name)
def test_a_role_says_what_it_does_and_how_often_it_is_looked_at(role: templates.Role) -> None:
    assert role.summary.endswith(".")
    assert 5 <= role.check_in_minutes <= 120
    assert len(role.text) > 100
    assert "{{" not in role.text
    assert cleaning.clean(role.text) == role.text


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.name)
def test_a_team_type_names_roles_that_exist(kind: TeamType) -> None:
    assert set(kind.roles) <= set(ROLES)
    assert kind.roles[0] == "orchestrator"
    assert len(set(kind.roles)) == len(kind.roles)
    assert kind.summary.endswith(".")


def test_no_word_speaks_for_two_types() -> None:
    words = [word for kind in TYPES.values() for word in kind.words]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("role", ["orchestrator", "developer"])
def test_every_template_renders(name: str, role: str) -> None:
    text = templates.render(name, **{**VALUES, "role": role})
    assert text.strip()
    assert cleaning.clean(text) == text
    assert "{{" not in text and "{%" not in text
    assert "\n\n\n" not in text.strip()


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        templates.render("recurring_check_in.md")


def test_values_are_data_and_are_not_rendered() -> None:
    assert "{{ role }}" in briefing(title="about {{ role }} & <b>")
    assert "<b>" in briefing(title="about {{ role }} & <b>")


@pytest.mark.parametrize("role", ROLES)
def test_a_briefing_of_ten_agents_stays_short(role: str) -> None:
    assert len(TEN) == 10
    assert len(briefing(role=role).encode()) < LONGEST_BYTES


@pytest.mark.parametrize("role", ROLES)
def test_a_role_text_stays_short(role: str) -> None:
    text = templates.render("role.md", **{**VALUES, "role": role, "role_text": ROLES[role].text})
    assert len(text.encode()) < LONGEST_BYTES
    assert ROLES[role].text in text
    assert f"report-completion.sh {role} " in text


@pytest.mark.parametrize("role", ["orchestrator", "developer", "devops"])
def test_a_briefing_names_everything_that_its_agent_needs(role: str) -> None:
    mates = team("orchestrator", "developer", "tester", "devops")
    text = briefing(role=role, team=mates, branch=f"orchestration/x/{role}")
    for needed in ("title", "spec", "worktree", "starting_branch", "starting_commit", "session"):
        assert str(VALUES[needed]) in text
    for mate in mates:
        assert f"{mate.target} (branch {mate.branch})" in text
    assert text.count("that is you") == 1


def test_the_rehearsal_reads_a_briefing_as_one() -> None:
    mates = team("orchestrator", "developer")
    prompt = framing.frame(1, "scheduler", cleaning.clean(briefing(team=mates)))
    (message,) = play.read_messages(prompt)
    facts = play.learn(play.Facts(role="orchestrator"), message)
    assert play.is_briefing(message)
    assert (facts.spec, facts.worktree, facts.branch) == (VALUES["spec"], VALUES["worktree"], VALUES["branch"])
    assert [member.target for member in facts.team] == [mate.target for mate in mates]
