"""git, in git's own words: the one place that runs the git command."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lib.errors import OrchestratorError, Unavailable
from lib.records import dataclass

#: Who commits what is ours: snapshots and merges of the hub.
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Tmux Orchestrator"), ("EMAIL", "orchestrator@localhost"))
}

#: What git sets for its hooks, and what else names one repository or one way to read it: git works on what it is told.
OF_ONE_CALL = frozenset(
    (
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE"),
        *("GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS"),
        *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
        *("GIT_INTERNAL_SUPER_PREFIX", "GIT_REFLOG_ACTION"),
    )
)


def ask(
    folder: Path,
    *arguments: str,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    hooks: bool = True,
    seconds: float | None = None,
) -> str:
    """Run git in a folder and return what it prints. `text` is its standard input, `settings` are for `git -c`.

    Names of files come and go as the file system has them, whatever bytes they are of. Without `hooks` neither the
    user's hooks nor our guards run: for what is plumbing of ours. Raises `OrchestratorError` with git's own words,
    `Unavailable` when git is missing or takes longer than `seconds`.
    """
    done = run(folder, *arguments, text=text, environment=environment, settings=settings, hooks=hooks, seconds=seconds)
    if done.returncode:
        raise failed(folder, done)
    return done.stdout


def run(
    folder: Path,
    *arguments: str,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    hooks: bool = True,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run git as `ask` does, where an exit code is an answer. Its `args` are what stands behind `git`."""
    if shutil.which("git") is None:
        raise Unavailable("git is not installed", hint="./setup.sh")
    given = [*settings, *(() if hooks else (f"core.hooksPath={os.devnull}",))]
    command = ["git", "-C", str(folder), *(word for one in given for word in ("-c", one)), *arguments]
    kept = {name: value for name, value in os.environ.items() if name not in OF_ONE_CALL}
    try:
        # In bytes: text would turn the carriage returns of file names into line feeds.
        done = subprocess.run(
            command,
            input=None if text is None else os.fsencode(text),
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            # Without optional locks no look of ours is in the way of an agent's git.
            env={**kept, "GIT_OPTIONAL_LOCKS": "0", **(environment or {})},
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"git {arguments[0]} in {folder} took longer than {seconds:.0f} s") from None
    return subprocess.CompletedProcess(
        list(arguments), done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    )


def failed(folder: Path, done: subprocess.CompletedProcess[str]) -> OrchestratorError:
    """The error that a failure of git's is, in git's own words."""
    return OrchestratorError(f"git {' '.join(done.args[:2])} failed in {folder}: {words_of(done)}")


@dataclass(frozen=True)
class Objects:
    """A store of objects beside a repository's own: what is written goes here, and both are read."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What git has to be told."""
        return {"GIT_OBJECT_DIRECTORY": str(self.folder)}


def objects_of(folder: Path, *, seconds: float | None = None) -> Path:
    """Where the repository of a folder keeps its objects. Raises as `ask` does."""
    return folder / ask(folder, "rev-parse", "--git-path", "objects", seconds=seconds).removesuffix("\n")


@contextlib.contextmanager
def passing_objects(own: Path) -> Iterator[Objects]:
    """A store of objects beside a repository's own, which is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-objects-") as place:
        about = Path(place) / "info"
        about.mkdir()
        # In quotes, as git reads a name that may hold anything.
        name = str(own).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        (about / "alternates").write_bytes(os.fsencode(f'"{name}"\n'))
        yield Objects(Path(place))


def legible(name: str) -> str:
    """A file's name for people and agents: in one line, whatever bytes it is of."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def words_of(done: subprocess.CompletedProcess[str]) -> str:
    """What git said of a failure, in one line."""
    return "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())


#: How long listing all files may take; 50,000 take a fraction of a second.
_LISTING_SECONDS = 10.0


def tracked_files(folder: Path) -> list[str]:
    """The paths of all files that git tracks in a checkout. Raises as `ask` does."""
    return [path for path in ask(folder, "ls-files", "-z", seconds=_LISTING_SECONDS).split("\0") if path]


def version() -> tuple[int, int]:
    """The two first numbers of git's version; (0, 0) when it does not say."""
    said = ask(Path("/"), "--version").split()
    parts = said[2].split(".")[:2] if len(said) > 2 else []
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(part.isdigit() for part in parts) else (0, 0)
