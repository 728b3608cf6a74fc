"""Whatever agents do with git, in any order: no work is lost, and what is the user's stays as it is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lib import agents, orchestrations, store
from lib.git import guards, removals, snapshots, worktrees
from lib.git.guards import Rules
from lib.merging import candidates, hub, integrations
from lib.models import DeliveryStatus, OrchestrationStatus
from tests.agents import an_orchestration

ID = "a1b2c3"
TEAM = f"orchestration/{ID}-spec"
ROLES = ("developer", "tester")
START = 1_900_000_000_000

role = st.sampled_from(ROLES)
name = st.sampled_from(("shared.txt", "other file.txt", "deep/one.txt"))
line = st.sampled_from(("alpha", "beta", "gamma", "delta"))

#: Ways out of a merge or a rebase that has stopped.
SETTLES = ("git add -A && git commit -q --no-edit", "git merge --abort", "git rebase --abort")
#: Ways to what is not an agent's; none may come about.
FORBIDDEN = (
    "git checkout -q precious && git commit -q --allow-empty --no-verify -m x",
    "git update-ref refs/heads/main HEAD",
    "git branch -f precious HEAD",
    "git branch -D precious",
    "git push -q --no-verify . +HEAD:precious",
    "git fetch -q . +HEAD:precious",
    "git tag -f v1 HEAD",
    "git tag -d v1",
    "git stash",
    "git checkout -q -B main",
)


class Agents(RuleBasedStateMachine):
    """Two agents in their worktrees, a scheduler that keeps what they hold, and a user who has a checkout."""

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nothing-is-lost-")
        self.folder = Path(self._folder.name).resolve()
        self.project, self.home = self.folder / "my project", self.folder / "state"
        self.project.mkdir()
        (self.home / "spool").mkdir(parents=True)
        (self.folder / ".gitconfig").write_text("[user]\nname = Test\nemail = test@localhost\n[gc]\nauto = 0\n")
        self.now = START
        self.commits: set[str] = set()
        self.blobs: set[str] = set()
        self.git(self.project, "init -q -b main")
        (self.project / "shared.txt").write_text("start\n")
        self.git(self.project, "add -A && git commit -q -m Start && git tag v1 && git branch precious")
        self.start = self.git(self.project, "rev-parse HEAD")
        # The user is in the middle of something, on a branch of their own.
        self.git(self.project, "checkout -q -b topic")
        (self.project / "shared.txt").write_text("the user's draft\n")
        (self.project / "staged.txt").write_text("staged\n")
        self.git(self.project, "add staged.txt")
        (self.project / "untracked.txt").write_text("untracked\n")
        self.users = self.look_at_the_users()
        self.main = self.start
        self.record_the_team()
        for one in ROLES:
            self.resume(one)

    def record_the_team(self) -> None:
        self.db = store.connect(self.home)
        found = an_orchestration(id=ID, project=self.project, branches=TEAM, starting_commit=self.start)
        with store.writing(self.db):
            orchestrations.add(self.db, found)
            for window, one in enumerate(ROLES):
                new = agents.NewAgent(one, window, self.worktree(one), f"{TEAM}/{one}", f"conversation-{one}")
                agents.add(self.db, found, new)

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        # The hardest end: nothing but refs keeps anything from now on.
        for one in ROLES:
            self.keep(one)
        self.git(self.project, "reflog expire --expire=now --all && git gc -q --prune=now")
        for thing in self.commits | self.blobs:
            assert self.git(self.project, f"cat-file -t {thing}") in ("commit", "blob"), f"{thing} is lost"
        self.db.close()
        self._folder.cleanup()

    # -- hands --

    def worktree(self, one: str) -> Path:
        return self.folder / "worktrees" / one

    def run(self, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", "GIT_EDITOR": "true"}
        return subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    def git(self, folder: Path, command: str) -> str:
        done = self.run(folder, f"git {command}")
        assert done.returncode == 0, f"git {command}: {done.stderr}"
        return done.stdout.strip()

    def act(self, one: str, command: str) -> None:
        """Something that an agent does, whether git lets it or not; its commit counts as made."""
        self.run(self.worktree(one), command)
        self.commits.add(self.git(self.worktree(one), "rev-parse HEAD"))

    def look_at_the_users(self) -> tuple[object, ...]:
        files = {
            path.name: path.read_bytes() for path in self.project.iterdir() if path.is_file() and path.name != ".git"
        }
        refs = self.git(self.project, "for-each-ref refs/heads/topic refs/heads/precious refs/tags/v1")
        return files, self.git(self.project, "ls-files -s"), self.git(self.project, "symbolic-ref HEAD"), refs

    # -- what agents do --

    @rule(one=role, name=name, line=line)
    def write(self, one: str, name: str, line: str) -> None:
        path = self.worktree(one) / name
        path.parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError), path.open("a") as file:
            file.write(f"{line} by {one}\n")

    @rule(one=role, name=name)
    def delete(self, one: str, name: str) -> None:
        (self.worktree(one) / name).unlink(missing_ok=True)

    @rule(one=role, how=st.sampled_from(("", "--amend --no-edit", "--no-verify")))
    def commit(self, one: str, how: str) -> None:
        self.act(one, f"git add -A && git commit -q --allow-empty -m Work {how}")

    @rule(one=role, names=st.sampled_from(("-A", "shared.txt")))
    def stage(self, one: str, names: str) -> None:
        self.act(one, f"git add {names}")

    @rule(one=role, how=st.sampled_from(("merge -q --no-edit", "rebase -q", "cherry-pick")))
    def take(self, one: str, how: str) -> None:
        other = next(mate for mate in ROLES if mate != one)
        self.act(one, f"git {how} {TEAM}/{other}")

    @rule(
        one=role,
        how=st.sampled_from(("git add -A && git commit -q --no-edit", "git merge --abort", "git rebase --abort")),
    )
    def settle(self, one: str, how: str) -> None:
        self.act(one, how)

    @rule(one=role, how=st.sampled_from(("--hard HEAD~1", "--hard HEAD", "--soft HEAD~1")))
    def go_back(self, one: str, how: str) -> None:
        # What is not committed goes with --hard, as the agent wants it: only what was kept before is there afterwards.
        self.act(one, f"git reset -q {how}")

    @rule(one=role)
    def leave_and_return(self, one: str) -> None:
        self.act(one, "git checkout -q --detach && git commit -q --allow-empty -m Loose")
        self.act(one, f"git checkout -q {TEAM}/{one}")

    @rule(one=role, command=st.sampled_from(FORBIDDEN))
    def try_what_is_forbidden(self, one: str, command: str) -> None:
        self.run(self.worktree(one), command)
        self.run(self.worktree(one), f"git checkout -q {TEAM}/{one}")

    # -- what the scheduler does --

    @rule(one=role)
    def keep(self, one: str) -> None:
        self.now += 1000
        taken = snapshots.take(
            self.worktree(one), orchestration=ID, role=one, branch=f"{TEAM}/{one}", now=self.now, why="test"
        )
        assert taken.held.left_out == ()
        for path in self.worktree(one).rglob("*"):
            if path.is_file() and path.name != ".git":
                self.blobs.add(self.git(self.project, f"hash-object '{path}'"))

    @rule(one=role)
    def resume(self, one: str) -> None:
        worktrees.ensure(self.project, self.worktree(one), f"{TEAM}/{one}", self.start)
        rules = Rules(ID, one, f"{TEAM}/{one}", f"{TEAM}/integration")
        guards.arm(self.worktree(one), rules, home=self.home, agent_id=ROLES.index(one) + 1, epoch=1)

    @precondition(lambda self: self.now > START)
    @rule(one=role)
    def clear_away_and_resume(self, one: str) -> None:
        self.keep(one)
        removals.remove_worktree(self.project, self.worktree(one), force=True)
        self.resume(one)

    @rule(one=role)
    def offer(self, one: str) -> None:
        agent = agents.in_role(self.db, ID, one)
        assert agent
        head = self.git(self.project, f"rev-parse refs/heads/{TEAM}/{one}")
        self.commits.add(head)
        candidates.offer(self.db, agent, head, now=self.now)
        hub.run(self.home, ID)

    @rule()
    def complete(self) -> None:
        """The team is done: its integration is delivered, and nothing else moves the starting branch."""
        with store.writing(self.db):
            integrations.want_delivery(self.db, ID, now=self.now)
            self.db.execute("UPDATE orchestrations SET status = 'completed' WHERE id = ?", (ID,))
        hub.run(self.home, ID)
        found = integrations.of(self.db, ID)
        if found and found.delivery is DeliveryStatus.DELIVERED:
            self.main = self.git(self.project, f"rev-parse refs/heads/{TEAM}/integration")
        self.db.execute("UPDATE orchestrations SET status = ? WHERE id = ?", (OrchestrationStatus.RUNNING, ID))
        self.db.execute("UPDATE integrations SET delivery = 'not_yet'")  # so that it may complete once more

    # -- what always holds --

    @invariant()
    def the_starting_branch_moves_by_delivery_only(self) -> None:
        if hasattr(self, "main"):
            assert self.git(self.project, "rev-parse refs/heads/main") == self.main

    @invariant()
    def the_users_checkout_and_branches_are_as_they_were(self) -> None:
        if hasattr(self, "users"):
            assert self.look_at_the_users() == self.users


@pytest.mark.timeout(3600)
def test_nothing_is_lost(is_long: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    how = settings(
        max_examples=200 if is_long else 6,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Agents, settings=how)
