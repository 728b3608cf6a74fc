"""How projects travel between hosts, and what their teams have made travels back: by git remotes, or as bundles.

A project whose commit stands on a remote is fetched from there by the host that takes an entry of it. Otherwise, or
when that host cannot reach the remote, it goes as git bundles through the fleet's object store, each of which holds
what those before it do not. What a team has made always goes as a bundle.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from lib.errors import OrchestratorError, Unavailable
from lib.fleet import buckets
from lib.fleet.connection import Connection
from lib.fleet.envelopes import Unreadable
from lib.git import bundles, repository, worktrees
from lib.git.repository import ask
from lib.judgement import specs
from lib.records import dataclass

#: Of so many bundles one after the other is the whole made anew.
MOST_BUNDLES = 8
#: A fetch from a remote; more is a network that hangs.
FETCH_SECONDS = 600.0
#: git asks nobody, and runs no program that an address names.
_UNASKED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
}
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
#: A branch of a team.
_OF_A_TEAM = re.compile(r"orchestration/[\w.-]+(/[\w.-]+)+")


class Unreachable(Unavailable):
    """The remote of a project cannot be reached from here, or has not the commit."""


@dataclass(frozen=True)
class Parcel:
    """An object of the fleet's store: whose bucket it is in, and its name."""

    host: str
    name: str

    @classmethod
    def of(cls, data: Any) -> Parcel:
        """From a record. Raises `Unreadable`."""
        try:
            return cls(str(data["host"]), str(data["name"]))
        except (TypeError, KeyError):
            raise Unreadable("an entry of the fleet's queue names an object that cannot be read") from None

    def as_data(self) -> dict[str, str]:
        """For a record."""
        return {"host": self.host, "name": self.name}


@dataclass(frozen=True)
class Ground:
    """Where a team begins: the project's key and name, its commit and branch, and how it can be had."""

    key: str
    name: str
    commit: str
    branch: str | None
    remote: str | None
    #: Each with its parcel and the commit that it brings.
    chain: tuple[tuple[Parcel, str], ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Ground:
        """From a record. Raises `Unreadable` for what git and the file system must not be given."""
        key, name, commit, branch = (data.get(one) for one in ("key", "name", "commit", "branch"))
        remote = data.get("remote")
        chain = tuple((Parcel.of(one), str(one.get("commit"))) for one in data.get("chain", ()))
        names = [str(key), str(name)]
        is_plain = all(re.fullmatch(r"[\w.-]+", one) and not one.startswith(".") for one in names)
        commits = [str(commit), *(one for _, one in chain)]
        is_remote = remote is None or (isinstance(remote, str) and not remote.startswith("-"))
        is_branch = branch is None or (isinstance(branch, str) and bool(branch) and not branch.startswith("-"))
        if not (is_plain and is_remote and is_branch and all(map(_COMMIT.fullmatch, commits))):
            raise Unreadable("the project of an entry of the fleet's queue cannot be read")
        return cls(str(key), str(name), str(commit), branch, remote, chain)

    def as_data(self) -> dict[str, object]:
        """For a record."""
        chain = [{**parcel.as_data(), "commit": commit} for parcel, commit in self.chain]
        return {
            **{"key": self.key, "name": self.name, "commit": self.commit, "branch": self.branch},
            **{"remote": self.remote, "chain": chain},
        }


# -- a project goes --


def key_of(host: str, project: Path) -> str:
    """What a project is called in the fleet: its name, and what tells it from others of that name."""
    return f"{specs.slug(project.name, longest=40)}-{hashlib.sha256(f'{host}:{project}'.encode()).hexdigest()[:10]}"


def ground_of(host: str, project: Path) -> Ground:
    """Where a team would begin in a project now, with its remote when the commit stands there; no bundle yet."""
    start = worktrees.starting_point(project)
    return Ground(
        key=key_of(host, project),
        name=specs.slug(project.name, longest=40),
        commit=start.commit,
        branch=start.branch,
        remote=remote_with(project, start.commit),
        chain=(),
    )


def remote_with(project: Path, commit: str) -> str | None:
    """The address of a remote on which a commit stands, as far as this clone knows; None when there is none.

    A login in an address stays here: every host has its own.
    """
    for name in ask(project, "remote").split():
        contains = f"--contains={commit}"
        if not ask(
            project, "for-each-ref", "--count=1", "--format=%(refname)", contains, f"refs/remotes/{name}"
        ).strip():
            continue
        address = ask(project, "remote", "get-url", name).strip()
        if address and not address.startswith(("-", "ext::")):
            return _without_login(address)
    return None


def _without_login(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


async def send_project(
    made: Connection, project: Path, ground: Ground, there: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Have the store hold a project's commit as bundles, after those that are said to be there.

    Returns name and commit of all, in their order.
    """
    chain = list(there) if len(there) < MOST_BUNDLES else []
    if not all([await buckets.has_object(made, made.host, name) for name, _ in chain]):
        chain = []  # the store was made anew
    with tempfile.TemporaryDirectory(prefix="orchestrator-bundle-") as folder:
        path = Path(folder) / "bundle"
        known = [commit for _, commit in chain]
        if await asyncio.to_thread(bundles.write, project, path, [ground.commit], known=known):
            name = f"{ground.key}/{'base' if not chain else 'more'}-{ground.commit}"
            await buckets.put_object(made, name, path)
            chain.append((name, ground.commit))
    return chain


# -- a project comes --


async def receive_project(made: Connection, ground: Ground, *, kept: Path, into: Path) -> None:
    """Make a checkout of a project's commit in `into`, on its branch; `kept` is where this host keeps projects.

    Raises `Unreachable` when there is only a remote and that cannot be had from here.
    """
    cache = kept / f"{ground.key}.git"
    await asyncio.to_thread(_ensure_cache, cache)
    ref = f"refs/orchestrator/fleet/{ground.commit}"
    if not await asyncio.to_thread(bundles.has, cache, ground.commit):
        if ground.chain:
            await _by_bundles(made, ground, cache)
        else:
            await asyncio.to_thread(_by_remote, ground, cache)
    await asyncio.to_thread(bundles.take_in, cache, None, {ref: ground.commit})
    await asyncio.to_thread(_check_out, cache, ref, ground, into)


def _ensure_cache(cache: Path) -> None:
    if not (cache / "HEAD").exists():
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ask(cache.parent, "init", "--quiet", "--bare", str(cache))


async def _by_bundles(made: Connection, ground: Ground, cache: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="orchestrator-bundle-") as folder:
        path = Path(folder) / "bundle"
        for parcel, commit in ground.chain:
            if await asyncio.to_thread(bundles.has, cache, commit):
                continue
            await buckets.get_object(made, parcel.host, parcel.name, path)
            refs = {f"refs/orchestrator/fleet/{commit}": commit}
            await asyncio.to_thread(bundles.take_in, cache, path, refs)


def _by_remote(ground: Ground, cache: Path) -> None:
    assert ground.remote is not None
    words = ("fetch", "--quiet", "--no-tags", "--", ground.remote, "+refs/heads/*:refs/orchestrator/remote/*")
    done = repository.run(cache, *words, environment=_UNASKED, hooks=False, seconds=FETCH_SECONDS)
    if done.returncode or not bundles.has(cache, ground.commit):
        why = repository.words_of(done) if done.returncode else f"it has no commit {ground.commit[:12]}"
        raise Unreachable(f"{ground.name} cannot be had from {ground.remote}: {why}")


def _check_out(cache: Path, ref: str, ground: Ground, into: Path) -> None:
    """Whatever a killed try has left is made anew: nobody has worked there yet."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True, mode=0o700)
    ask(into, "init", "--quiet")
    ask(into, "fetch", "--quiet", "--no-tags", str(cache), ref, hooks=False, seconds=FETCH_SECONDS)
    words = ("--detach", ground.commit) if ground.branch is None else ("-B", ground.branch, ground.commit)
    ask(into, "checkout", "--quiet", *words, hooks=False, seconds=FETCH_SECONDS)


# -- what a team has made --


def branches_of(project: Path, prefixes: Sequence[str]) -> dict[str, str]:
    """The branches below some names, with their commits."""
    patterns = [f"refs/heads/{prefix}/" for prefix in prefixes]
    if not patterns:
        return {}
    said = ask(project, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", *patterns)
    return dict(line.split(" ") for line in said.splitlines())


async def send_branches(
    made: Connection, name: str, project: Path, branches: Mapping[str, str], *, base: str
) -> Parcel | None:
    """Put what branches hold beyond the commit on which the team began. None when that is nothing."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-bundle-") as folder:
        path = Path(folder) / "bundle"
        commits = list(branches.values())
        if not commits or not await asyncio.to_thread(bundles.write, project, path, commits, known=[base]):
            return None
        await buckets.put_object(made, name, path)
    return Parcel(made.host, name)


def branches_in(data: Mapping[str, Any]) -> dict[str, str]:
    """Branches of a team and their commits, from a record. Raises `Unreadable` for what is none."""
    found = data.get("branches")
    if not isinstance(found, dict) or not all(
        isinstance(commit, str) and _OF_A_TEAM.fullmatch(name) and _COMMIT.fullmatch(commit)
        for name, commit in found.items()
    ):
        raise Unreadable("the branches of an entry of the fleet's queue cannot be read")
    return found


async def receive_branches(made: Connection, data: Mapping[str, Any], project: Path, place: str) -> dict[str, str]:
    """Bring what a team has pushed into a project, below refs of ours at `place`. Returns branches and commits."""
    branches = branches_in(data)
    refs = {f"{place}/{name}": commit for name, commit in branches.items()}
    with tempfile.TemporaryDirectory(prefix="orchestrator-bundle-") as folder:
        path: Path | None = None
        if data.get("parcel") is not None:
            path = Path(folder) / "bundle"
            parcel = Parcel.of(data["parcel"])
            await buckets.get_object(made, parcel.host, parcel.name, path)
        await asyncio.to_thread(bundles.take_in, project, path, refs)
    return branches


def make_branches(project: Path, branches: Mapping[str, str], place: str) -> list[str]:
    """Make branches of what was received at `place`; one whose name has another commit stays, and ours stays there.

    Returns the names of those.
    """
    taken = bundles.make_branches(project, branches)
    bundles.forget(project, [f"{place}/{name}" for name in branches if name not in taken])
    return sorted(taken)


def in_words(error: OrchestratorError) -> str:
    """An error as a reason, in one line."""
    return f"{error.sentence}; next: {error.hint}" if error.hint else error.sentence
