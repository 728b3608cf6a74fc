"""Guards: what keeps an agent to its own branch, by git itself and in its own worktree only.

A folder of an agent holds links to `guard.sh`, named as git names its hooks, and the rules that it reads. The
worktree's own configuration (`config.worktree`, git 2.20) points `core.hooksPath` there: no other worktree notices, and
the user's hooks still run. Refs are guarded by `reference-transaction`, which no option skips (git 2.28).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from lib.config import ROOT
from lib.errors import OrchestratorError
from lib.git import repository
from lib.git.repository import ask
from lib.records import dataclass

PROGRAM = ROOT / "lib" / "git" / "guard.sh"
#: Hooks that guard, sign and tell, and those that only pass on to the user's own of that name.
OURS = ("reference-transaction", "pre-push", "prepare-commit-msg", "commit-msg", "post-commit")
PASSED_ON = (
    *("applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "pre-rebase"),
    *("post-checkout", "post-merge", "post-rewrite", "pre-auto-gc", "post-index-change", "sendemail-validate"),
)
#: What enabling a worktree's own configuration has to move out of the common one (git-worktree(1)).
_OF_THE_FIRST_WORKTREE = (("core.worktree", ""), ("core.bare", "false"))


@dataclass(frozen=True)
class Rules:
    """What one agent may do. `free` are patterns of refs that a policy opens to it, `forced` those without any rule."""

    orchestration: str
    role: str
    branch: str
    integration: str
    free: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Word:
    """What a guard has told: `moved`, `refused` or `unverified`, of which ref; objects are "" where there are none."""

    kind: str
    old: str
    new: str
    ref: str


def folder_of(home: Path, agent_id: int) -> Path:
    """Where an agent's hooks are."""
    return home / "agents" / str(agent_id) / "hooks"


def arm(worktree: Path, rules: Rules, *, home: Path, agent_id: int, epoch: int) -> None:
    """Have git guard a worktree by these rules; running it again brings them up to date.

    Not beside another change of the repository's configuration. Raises `OrchestratorError` with git's words.
    """
    folder = folder_of(home, agent_id)
    _write_rules(folder, _text(rules, home, agent_id, epoch, users_hooks(worktree)))
    for name in (*OURS, *PASSED_ON):
        _link(folder / name)
    _enable_own_configuration(worktree)
    _leave_rerere_as_it_is(worktree)
    ask(worktree, "config", "--worktree", "core.hooksPath", str(folder))
    # Conflicts that one agent has resolved are resolved for all: git keeps them in the common folder.
    ask(worktree, "config", "--worktree", "rerere.enabled", "true")


def disarm(worktree: Path, *, agent_id: int) -> None:
    """Take an agent's guards off a worktree: whoever works there next is held by nothing of ours."""
    if not worktree.exists():
        return
    done = repository.run(worktree, "config", "--worktree", "--get", "core.hooksPath")
    if done.returncode == 0 and done.stdout.rstrip("\n").endswith(f"/agents/{agent_id}/hooks"):
        ask(worktree, "config", "--worktree", "--unset", "core.hooksPath")


def users_hooks(worktree: Path) -> str:
    """Where the user's own hooks are: absolute, or seen from the top of a worktree."""
    named = ask(_users_checkout(worktree), "config", "--type=path", "--default", "", "--get", "core.hooksPath")
    return named.rstrip("\n") or str(_common_folder(worktree) / "hooks")


def _users_checkout(worktree: Path) -> Path:
    """Where settings hold as they do for the user; that of a bare repository is the repository itself."""
    first = Path(ask(worktree, "worktree", "list", "--porcelain").split("\n", 1)[0].removeprefix("worktree "))
    return first if first.exists() else _common_folder(worktree)


def _common_folder(worktree: Path) -> Path:
    return Path(os.path.normpath(worktree / ask(worktree, "rev-parse", "--git-common-dir").rstrip("\n")))


def note_message(home: Path, agent_id: int, message_id: int) -> None:
    """Note which message an agent works on from now on: its commits are signed with it."""
    folder = folder_of(home, agent_id)
    if folder.exists():
        _write_whole(folder / "message", f"{message_id}\n")


def read(payload: bytes) -> Word | None:
    """Read what a guard has left in the spool; None when it is none."""
    fields = payload.decode("utf-8", "surrogateescape").rstrip("\n").split("\t")
    if len(fields) != 4 or fields[0] not in ("moved", "refused", "unverified"):
        return None
    kind, old, new, ref = fields
    # A ref may have any bytes but those of control; the store takes text.
    return Word(kind, _object(old), _object(new), ref.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _object(name: str) -> str:
    return "" if set(name) <= {"0"} else name


def _text(rules: Rules, home: Path, agent_id: int, epoch: int, users: str) -> str:
    lines: Sequence[tuple[str, object]] = (
        ("home", home),
        ("agent", agent_id),
        ("epoch", epoch),
        ("role", rules.role),
        ("orchestration", rules.orchestration),
        ("own", f"refs/heads/{rules.branch}"),
        ("integration", f"refs/heads/{rules.integration}"),
        ("users", users),
        *(("free", one) for one in rules.free),
        *(("forced", one) for one in rules.forced),
    )
    if any("\n" in str(value) for _, value in lines):
        raise OrchestratorError(f"the folder {str(home)!r} or {users!r} has a line break in its name")
    return "".join(f"{word} {value}\n" for word, value in lines)


def _write_rules(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_whole(folder / "rules", text)


def _write_whole(path: Path, text: str) -> None:
    # Git may run a hook at any moment: it reads the old rules or the new ones.
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(text, encoding="utf-8", errors="surrogateescape")
    draft.replace(path)


def _link(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.readlink() == PROGRAM:
            return
        path.unlink()  # of a checkout that stood elsewhere
    path.symlink_to(PROGRAM)


def _enable_own_configuration(worktree: Path) -> None:
    """Let each worktree have a configuration of its own, in the order that git-worktree(1) gives."""
    common = _common_folder(worktree)
    config = str(common / "config")

    def setting(key: str) -> str:
        return ask(worktree, "config", "--file", config, "--default", "", "--get", key).rstrip("\n")

    if setting("extensions.worktreeConfig") == "true":
        return
    moved = [(key, value) for key, usual in _OF_THE_FIRST_WORKTREE if (value := setting(key)) not in ("", usual)]
    for key, value in moved:
        ask(worktree, "config", "--file", str(common / "config.worktree"), key, value)
    ask(worktree, "config", "--file", config, "extensions.worktreeConfig", "true")
    for key, _ in moved:
        ask(worktree, "config", "--file", config, "--unset", key)


def _leave_rerere_as_it_is(worktree: Path) -> None:
    """Agents' resolutions are kept in a folder whose being there would switch rerere on for the user's own merges."""
    common, place = _common_folder(worktree), _users_checkout(worktree)
    if (common / "rr-cache").exists() or repository.run(place, "config", "--get", "rerere.enabled").returncode == 0:
        return
    ask(worktree, "config", "--file", str(common / "config.worktree"), "rerere.enabled", "false")
