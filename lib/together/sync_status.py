"""Where the worktrees of live teams stand: one snapshot for `sync_coordinator.py status`, the dashboard and --json."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from lib import agents, host
from lib.errors import OrchestratorError
from lib.git import merges, repository, snapshots, standing
from lib.git.merges import Distance
from lib.git.repository import legible
from lib.git.standing import Standing
from lib.models import LIVE, Agent, Orchestration
from lib.records import dataclass
from lib.status import ago
from lib.together import overlaps, radar

#: A look is mostly git at work in processes of its own.
_AT_ONCE = 8
#: A worktree that takes longer is shown as one that could not be looked at.
_GIT_SECONDS = 10.0


@dataclass(frozen=True)
class Meeting:
    """Another role of the team, and the files in which git could not merge the two, by the radar's last round."""

    role: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class WorktreeStanding:
    """One agent's worktree now. Times are UTC milliseconds; counts are None when they could not be had.

    `branch` is the agent's own, `on` the one that is checked out (None: a detached HEAD). `ahead` and `behind` count
    commits against the starting branch. `conflicts` are files of what is `under_way`: merge, rebase and their like.
    """

    target: str
    role: str
    is_alive: bool
    worktree: str
    branch: str
    on: str | None = None
    head: str | None = None
    ahead: int | None = None
    behind: int | None = None
    dirty: int | None = None
    committed_at: int | None = None
    subject: str | None = None
    under_way: str | None = None
    conflicts: tuple[str, ...] = ()
    overlaps: tuple[Meeting, ...] = ()
    snapshot_at: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class TeamStanding:
    """The worktrees of one live team. `starting_commit` is what the starting branch stands on now."""

    session: str
    orchestration: str
    project: str
    title: str
    status: str
    starting_branch: str | None
    starting_commit: str
    agents: tuple[WorktreeStanding, ...]
    problem: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether any of its agents lives."""
        return any(one.is_alive for one in self.agents)


@dataclass(frozen=True)
class Board:
    """All that was seen in one look; of one `project` only, if so. `radar_off` is why nobody looks for overlaps."""

    at: int
    teams: tuple[TeamStanding, ...]
    radar_off: str | None = None
    project: str | None = None


@dataclass(frozen=True)
class _Home:
    """What a team's repository says of it: where its starting branch stands, and the newest snapshot of each role."""

    start: str
    snapshots: dict[str, int]
    problem: str | None = None


class Looking:
    """Looks again and again: what can never change of a commit is asked once."""

    def __init__(self) -> None:
        self._distances: dict[tuple[str, str], Distance] = {}
        self._commits: dict[str, tuple[int, str]] = {}

    def board(self, db: sqlite3.Connection, found: Sequence[Orchestration], *, now: int) -> Board:
        """The worktrees of these teams. What cannot be looked at has a `problem`, and stops no other."""
        teams = {one.id: agents.of_orchestration(db, one.id) for one in found}
        met = {one.id: _meetings(db, one.id, teams[one.id]) for one in found}
        everyone = [agent for team in teams.values() for agent in team]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asked = pool.map(lambda one: self._home(one, teams[one.id]), found)
            stood = pool.map(_stand, everyone)
            homes = dict(zip(teams, asked, strict=True))
            of = [homes[agent.orchestration_id or ""] for agent in everyone]
            shown = pool.map(self._show, everyone, of, stood)
            worktrees = {agent.id: one for agent, one in zip(everyone, shown, strict=True)}
        return Board(
            now,
            tuple(
                _team(
                    one,
                    homes[one.id],
                    [replace(worktrees[agent.id], overlaps=met[one.id].get(agent.id, ())) for agent in teams[one.id]],
                )
                for one in found
            ),
            radar.why_off(db),
        )

    def _home(self, found: Orchestration, team: Sequence[Agent]) -> _Home:
        """Ask a repository about a team; on the way the newest commits of its branches are learnt."""
        refs = [f"refs/heads/{agent.branch}" for agent in team]
        start = f"refs/heads/{found.starting_branch}" if found.starting_branch else None
        words = ("--format=%(refname) %(objectname) %(committerdate:unix) %(contents:subject)", *refs)
        heads = {}
        try:
            said = repository.ask(
                found.project, "for-each-ref", *words, *([start] if start else []), seconds=_GIT_SECONDS
            )
            for line in said.splitlines():
                ref, commit, at, subject = line.split(" ", 3)
                heads[ref] = commit
                self._commits[commit] = (int(at) * 1000, legible(subject))
            newest = {one.role: one.at for one in snapshots.every(found.project, found.id)}
        except OrchestratorError as error:
            return _Home(found.starting_commit, {}, error.sentence)
        return _Home(heads.get(start or "", found.starting_commit), newest)

    def _show(self, agent: Agent, home: _Home, stood: Standing | OrchestratorError) -> WorktreeStanding:
        shown = WorktreeStanding(
            target=agent.target,
            role=agent.role,
            is_alive=host.is_alive(agent.process),
            worktree=str(agent.worktree),
            branch=agent.branch,
            snapshot_at=home.snapshots.get(agent.role),
        )
        if isinstance(stood, OrchestratorError):
            return replace(shown, problem=stood.sentence)
        shown = replace(
            shown,
            on=stood.branch,
            head=stood.head,
            dirty=stood.dirty,
            under_way=stood.under_way,
            conflicts=tuple(map(legible, stood.conflicts)),
        )
        if stood.head is None:
            return shown
        try:
            distance = self._distance(agent.worktree, stood.head, home.start)
            at, subject = self._commit(agent.worktree, stood.head)
        except OrchestratorError as error:
            return replace(shown, problem=error.sentence)
        return replace(shown, ahead=distance.ahead, behind=distance.behind, committed_at=at, subject=subject)

    def _distance(self, worktree: Path, head: str, start: str) -> Distance:
        if (head, start) not in self._distances:
            self._distances[head, start] = merges.distance(worktree, head, start, seconds=_GIT_SECONDS)
        return self._distances[head, start]

    def _commit(self, worktree: Path, head: str) -> tuple[int, str]:
        if head not in self._commits:
            said = repository.ask(
                worktree, "show", "-s", "--no-show-signature", "--format=%ct %s", head, seconds=_GIT_SECONDS
            )
            at, _, subject = said.rstrip("\n").partition(" ")
            self._commits[head] = (int(at) * 1000, legible(subject))
        return self._commits[head]


def _stand(agent: Agent) -> Standing | OrchestratorError:
    try:
        return standing.look(agent.worktree, seconds=_GIT_SECONDS)
    except OrchestratorError as error:
        return error


def _meetings(db: sqlite3.Connection, orchestration_id: str, team: Sequence[Agent]) -> dict[int, tuple[Meeting, ...]]:
    roles = {agent.id: agent.role for agent in team}
    found: dict[int, tuple[Meeting, ...]] = {}
    for one in overlaps.of_team(db, orchestration_id):
        files = tuple(map(legible, one.files))
        for agent, mate in ((one.agent, one.other), (one.other, one.agent)):
            found[agent] = (*found.get(agent, ()), Meeting(roles[mate], files))
    return found


def _team(found: Orchestration, home: _Home, team: Sequence[WorktreeStanding]) -> TeamStanding:
    return TeamStanding(
        session=found.session,
        orchestration=found.id,
        project=str(found.project),
        title=found.spec_title,
        status=found.status,
        starting_branch=found.starting_branch,
        starting_commit=home.start,
        agents=tuple(team),
        problem=home.problem,
    )


# -- as words --


def nobody(board: Board) -> str:
    """What there is to say when there is no team."""
    if board.project:
        return f"no team is running in {board.project}: auto_orchestrate.py --project {board.project} --spec SPEC"
    return "no team is running: auto_orchestrate.py --spec SPEC, or --demo"


def nobody_lives(team: TeamStanding) -> str:
    """What there is to say of a team whose agents have all ended."""
    if team.status not in LIVE:
        return f"it is {team.status}; its worktrees stay: sync_coordinator.py clean {team.session}"
    return f"no agent of it lives: auto_orchestrate.py --project {team.project} --resume"


def conflict_lines(one: WorktreeStanding, *, but: Collection[str] = ()) -> list[tuple[str, bool]]:
    """What is in the way of a worktree, in words, and whether it is now or only to come; `but` leaves overlaps away."""
    lines = [] if one.is_alive else [("has ended", False)]
    lines += [(f"could not be looked at: {one.problem}", True)] if one.problem else []
    if one.under_way:
        files = f", in conflict: {_first(one.conflicts)}" if one.conflicts else ""
        lines.append((f"has a {one.under_way} under way{files}", True))
    mates = [mate for mate in one.overlaps if mate.role not in but]
    return lines + [(f"overlaps with {mate.role} in {_first(mate.files)}", False) for mate in mates]


def _first(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def short_branch(one: WorktreeStanding) -> str:
    """What is checked out: the end of the agent's own branch, another branch in full, or `detached`."""
    if one.problem and one.head is None:
        return ""
    return "detached" if one.on is None else one.branch.rpartition("/")[2] if one.on == one.branch else one.on


def age(at: int | None, now: int) -> str:
    """How long ago something was; "" for what never was."""
    return "" if at is None else ago(now - at)


def as_data(board: Board) -> dict[str, object]:
    """The same for --json and files."""
    return {"time": datetime.fromtimestamp(board.at / 1000, UTC).isoformat(), **asdict(board)}


def as_text(board: Board) -> str:
    """The same as plain lines that fit a terminal of 100 columns."""
    blocks = ["\n".join(_team_lines(one, board.at)) for one in board.teams]
    return "\n\n".join([*(blocks or [nobody(board)]), *([board.radar_off] if board.radar_off else [])])


_ROW = "  {:16} {:16} {:>5} {:>6} {:>5}  {:10} {:32}"


def _team_lines(team: TeamStanding, now: int) -> list[str]:
    lines = [
        f"{team.session}: {team.status}  {team.title}",
        f"  project {team.project}, from {team.starting_branch or 'a detached HEAD'} at {team.starting_commit[:7]}",
    ]
    if team.problem:
        lines.append(f"  the project could not be asked: {team.problem}")
    if not team.is_alive:
        return [*lines, f"  {nobody_lives(team)}"]
    lines.append(_ROW.format("role", "branch", "ahead", "behind", "dirty", "snapshot", "last commit").rstrip())
    for one in team.agents:
        commit = f"{age(one.committed_at, now)}: {one.subject}" if one.subject is not None else ""
        counts = ["-" if number is None else number for number in (one.ahead, one.behind, one.dirty)]
        lines.append(
            _ROW.format(
                _cut(one.role, 16), _cut(short_branch(one), 16), *counts, age(one.snapshot_at, now), _cut(commit, 32)
            ).rstrip()
        )
        lines += [f"      {line}" for line, _ in conflict_lines(one)]
    return lines


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
