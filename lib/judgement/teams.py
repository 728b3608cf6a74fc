"""Which roles work on a spec: rules, in the order --roles, --team-type, --size, --plan."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from lib.errors import Usage
from lib.records import dataclass

ORCHESTRATOR = "orchestrator"
DEVELOPER = "developer"

#: The first windows of every team that has these roles (ARCHITECTURE.md, "Names").
WINDOW_ORDER = (ORCHESTRATOR, DEVELOPER, "tester", "testrunner", "project_manager")

#: How many agents a size means.
SIZES = {"small": 3, "medium": 5, "large": 8}
#: The names of Claude's plans; templates/plans.yaml has their figures.
PLANS = ("pro", "max5", "max20", "console")

DEFAULT_TYPE = "code_project"
DEFAULT_SIZE = "medium"


@dataclass(frozen=True)
class TeamType:
    """A kind of project: its roles, most needed first, what speaks for it, and who waits for whom.

    `words` of a spec and `files` of a repository, these by patterns, have the weight with which they speak for it.
    """

    name: str
    summary: str
    roles: tuple[str, ...]
    words: Mapping[str, float]
    depends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """A word of the spec, or a pattern that tracked files match, and how much it speaks for a type."""

    what: str
    weight: float
    files: int = 0

    @property
    def sentence(self) -> str:
        """The evidence as a person reads it."""
        if not self.files:
            return f"the spec says {self.what!r} ({self.weight:g})"
        return (
            f"{self.files} tracked {'file matches' if self.files == 1 else 'files match'} {self.what} ({self.weight:g})"
        )


@dataclass(frozen=True)
class Detection:
    """The type that is detected, what speaks for it, and how much speaks for each type, most first."""

    kind: TeamType
    evidence: tuple[Evidence, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """The type's name."""
        return self.kind.name


@dataclass(frozen=True)
class ClaudePlan:
    """What a plan of Claude's carries. `window_hours` is None when its usage is not counted by windows."""

    name: str
    summary: str
    agents: int
    window_hours: int | None
    weekly_windows: tuple[str, ...]


@dataclass(frozen=True)
class Team:
    """The roles chosen, in window order, and why. `depends` are pairs: a role, and one that it waits for.

    `whys` has a sentence for each role. `detection` is None when the type was named or did not matter. `needed` are
    those whom words of the spec need.
    """

    roles: tuple[str, ...]
    reason: str
    depends: tuple[tuple[str, str], ...] = ()
    whys: Mapping[str, str] = field(default_factory=dict)
    kind: str = DEFAULT_TYPE
    detection: Detection | None = None
    needed: tuple[str, ...] = ()


def choose(
    spec_text: str,
    *,
    known_roles: Sequence[str],
    types: Mapping[str, TeamType],
    plans: Mapping[str, ClaudePlan] = {},
    roles: Sequence[str] = (),
    team_type: str | None = None,
    size: str | None = None,
    plan: str | None = None,
    files: Sequence[str] = (),
    needs: Mapping[str, Sequence[str]] = {},
    most: int | None = None,
) -> Team:
    """The team for a spec. The same values always give the same team. Raises `Usage` listing what is valid.

    `files` are the repository's tracked files. `needs` are roles with the words of a spec that needs them. With `most`
    and no size the team is as large as `most` allows.
    """
    if team_type and team_type not in types:
        raise Usage(f"unknown team type {team_type!r}", hint=f"valid types: {', '.join(types)}")
    found = None if team_type else detect(spec_text, types, files)
    kind = found.kind if found else types[team_type or DEFAULT_TYPE]
    if roles:
        named = _in_window_order(_named(roles, known_roles))
        whys = {role: _EVERY_TEAM if role == ORCHESTRATOR else "named by --roles" for role in named}
        return Team(named, "named by --roles", _depends(kind, named), whys, kind.name)
    size = size or ("large" if most else DEFAULT_SIZE)
    cap = min(SIZES[size], plans[plan].agents if plan else SIZES["large"], most or SIZES["large"])
    said = [f"{kind.name}{_by(found)}", f"at most {most}" if most else f"{size} size"]
    if plan:
        said.append(f"plan {plan}")
    needed = {role: one for role, words in needs.items() if (one := _spoken(spec_text, words))}
    # Who names a type has said which roles may come.
    needed = {role: one for role, one in needed.items() if found or role in kind.roles}
    # Under a small cap not everybody who is needed has a place: who writes the product comes first.
    picked = _picked(kind.roles, cap, sorted(needed, key=lambda role: role != DEVELOPER))
    chosen = _in_window_order(picked)
    whys = {role: _why(role, kind, needed.get(role)) for role in chosen}
    by_need = tuple(role for role in chosen if role in needed)
    return Team(chosen, ", ".join(said), _depends(kind, chosen), whys, kind.name, found, by_need)


_EVERY_TEAM = "every team has one: it takes the reports and closes the work"

#: So many files that match one pattern count: a thousand data files say no more than a few.
_MOST_FILES = 3


def detect(spec_text: str, types: Mapping[str, TeamType], files: Sequence[str] = ()) -> Detection:
    """The type for which most speaks; a tie, or no evidence at all, is the default type."""
    tree = _Tree.of(files)
    evidence = {name: tuple(_evidence(spec_text, tree, kind)) for name, kind in types.items()}
    sums = {name: sum(one.weight for one in found) for name, found in evidence.items()}
    scores = sorted(sums.items(), key=lambda one: (-one[1], one[0]))
    best = scores[0][1]
    winners = [name for name, score in scores if score == best]
    name = winners[0] if best and len(winners) == 1 else DEFAULT_TYPE
    return Detection(types[name], evidence[name], tuple(scores))


def _evidence(spec_text: str, tree: _Tree, kind: TeamType) -> Iterator[Evidence]:
    for word in _spoken(spec_text, tuple(kind.words)):
        yield Evidence(word, kind.words[word])
    for pattern, weight in kind.files.items():
        if count := tree.matching(pattern):
            yield Evidence(pattern, weight * min(count, _MOST_FILES), count)


@dataclass(frozen=True)
class _Tree:
    """Tracked files, counted once, so that a pattern costs little in a repository of any size."""

    top: Counter[str]
    names: Counter[str]
    endings: Counter[str]
    folders: Counter[str]

    @classmethod
    def of(cls, files: Sequence[str]) -> _Tree:
        split = [path.rpartition("/") for path in files]
        names = Counter(name for _, _, name in split)
        endings: Counter[str] = Counter()
        for name, count in names.items():
            endings[name[name.rfind(".") :] if "." in name else ""] += count
        folders: Counter[str] = Counter()
        for folder, count in Counter(folder for folder, slash, _ in split if slash).items():
            for part in set(folder.split("/")):
                folders[part] += count
        return cls(Counter(name for _, slash, name in split if not slash), names, endings, folders)

    def matching(self, pattern: str) -> int:
        """How many files match: by their name, with a slash at the end by a folder, with one before it at the top."""
        if pattern.endswith("/"):
            return self.folders[pattern[:-1]]
        if pattern.startswith("/"):
            return _matching(pattern[1:], self.top)
        if re.fullmatch(r"\*\.\w+", pattern):
            return self.endings[pattern[1:]]
        return _matching(pattern, self.names)


def _matching(pattern: str, names: Counter[str]) -> int:
    if not any(letter in pattern for letter in "*?["):
        return names[pattern]
    return sum(names[name] for name in names if fnmatch.fnmatchcase(name, pattern))


def _spoken(text: str, words: Sequence[str]) -> list[str]:
    return [word for word in words if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)]


def _by(found: Detection | None) -> str:
    if found is None:
        return ""
    has_files = any(one.files for one in found.evidence)
    has_words = any(not one.files for one in found.evidence)
    if not has_files:
        return " by the words of the spec"
    return f" by the files of the project{' and the words of the spec' if has_words else ''}"


def _picked(roles: Sequence[str], cap: int, needed: Sequence[str]) -> tuple[str, ...]:
    """The first roles of a type; whom the spec needs takes the place of the last one that it does not need."""
    picked = list(roles[:cap])
    for role in needed:
        if role in picked:
            continue
        if len(picked) == cap:
            others = [one for one in picked if one != ORCHESTRATOR and one not in needed]
            if not others:
                break
            picked.remove(others[-1])
        picked.append(role)
    return tuple(picked)


def _why(role: str, kind: TeamType, words: Sequence[str] | None) -> str:
    if role == ORCHESTRATOR:
        return _EVERY_TEAM
    if words:
        return f"the spec says {', '.join(map(repr, words[:3]))}"
    return f"number {kind.roles.index(role) + 1} of the roles of {kind.name}, most needed first"


def _named(roles: Sequence[str], known_roles: Sequence[str]) -> tuple[str, ...]:
    # Comma lists and repetition both work; a role that is named twice is one role.
    wanted = [role.strip() for entry in roles for role in entry.split(",") if role.strip()]
    unknown = [role for role in wanted if role not in known_roles]
    if unknown or not wanted:
        raise Usage(
            f"unknown role {', '.join(unknown) or '(none given)'}",
            hint=f"valid roles: {', '.join(known_roles)}",
        )
    # Somebody has to take the reports and close the work.
    return tuple(dict.fromkeys([ORCHESTRATOR, *wanted]))


def _in_window_order(roles: Sequence[str]) -> tuple[str, ...]:
    first = [role for role in WINDOW_ORDER if role in roles]
    return tuple(dict.fromkeys([*first, *roles]))


def _depends(kind: TeamType, roles: Sequence[str]) -> tuple[tuple[str, str], ...]:
    # Only roles that are in the team count: nobody waits for one that never reports.
    return tuple((role, other) for role in roles for other in kind.depends.get(role, ()) if other in roles)
