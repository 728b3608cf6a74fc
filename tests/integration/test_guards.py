"""Guards in real worktrees: what git refuses to an agent, by whatever way it is asked, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import boundaries, host
from lib.git import guards
from lib.git.guards import Rules, Word
from lib.judgement.guarding import Opening
from tests.conftest import ROOT, Bench

TEAM = "orchestration/a1b2c3-spec"
DEVELOPER, TESTER = f"{TEAM}/developer", f"{TEAM}/tester"
AGENT = 7


@dataclass
class Repository:
    """A project whose developer's worktree is guarded; the tester's has no guards here."""

    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "my project"

    @property
    def worktree(self) -> Path:
        return self.folder / "worktrees" / "developer"

    @property
    def home(self) -> Path:
        return self.folder / "state home"

    def git(self, *words: str, at: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment |= {"HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true", **more}
        place = at or self.worktree
        return subprocess.run(["git", *words], cwd=place, env=environment, capture_output=True, text=True, check=False)

    def ok(self, *words: str, at: Path | None = None, **more: str) -> str:
        done = self.git(*words, at=at, **more)
        assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def commit(self, message: str = "Work", *words: str, at: Path | None = None) -> str:
        self.ok("commit", "-q", "--allow-empty", "-m", message, *words, at=at)
        return self.ok("rev-parse", "HEAD", at=at)

    def arm(self, **changed: tuple[str, ...]) -> None:
        rules = Rules("a1b2c3", "developer", DEVELOPER, f"{TEAM}/integration", **changed)
        guards.arm(self.worktree, rules, home=self.home, agent_id=AGENT, epoch=1)

    def refs(self) -> str:
        return self.ok("for-each-ref", at=self.project)

    def words(self) -> list[Word]:
        """What the guards have told, in order; taken out of the spool."""
        found = []
        for path in sorted((self.home / "spool").glob("*.ref")):
            word = guards.read(path.read_bytes())
            assert word
            found.append(word)
            path.unlink()
        return found

    def hook(self, name: str, text: str, folder: Path | None = None) -> None:
        """A hook of the user's own."""
        path = (folder or self.project / ".git" / "hooks") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


@pytest.fixture
def made(tmp_path: Path) -> Repository:
    found = Repository(tmp_path)
    found.project.mkdir()
    (tmp_path / ".gitconfig").write_text("[user]\nname = Test\nemail = test@localhost\n[init]\ndefaultBranch = main\n")
    (found.home / "spool").mkdir(parents=True)
    found.ok("init", "-q", "-b", "main", at=found.project)
    (found.project / "file").write_text("one\n")
    found.ok("add", "-A", at=found.project)
    found.commit("Start", at=found.project)
    for branch in ("someone", f"{TEAM}/integration"):
        found.ok("branch", branch, at=found.project)
    found.ok("tag", "v1", at=found.project)
    found.ok("worktree", "add", "-q", "-b", DEVELOPER, str(found.worktree), at=found.project)
    found.ok("worktree", "add", "-q", "-b", TESTER, str(tmp_path / "worktrees" / "tester"), at=found.project)
    found.arm()
    return found


@pytest.fixture
def remote(made: Repository) -> Path:
    path = made.folder / "remote.git"
    made.ok("init", "-q", "--bare", str(path), at=made.folder)
    made.ok("remote", "add", "origin", str(path), at=made.project)
    made.ok("push", "-q", "origin", "main", at=made.project)
    return path


REFUSED = [
    # A commit on somebody's branch that is checked out nowhere.
    ("git checkout -q someone && git commit -q --allow-empty -m x", "someone"),
    # The same around the hooks that --no-verify skips.
    ("git checkout -q someone && git commit -q --no-verify --allow-empty -m x", "someone"),
    # The starting branch, by every way that git has.
    ("git update-ref refs/heads/main HEAD~0^{commit} && git update-ref refs/heads/main $NEW", "main"),
    ("git push -q . HEAD:main", "main"),
    ("git push -q --no-verify . +HEAD:someone", "someone"),
    ("git fetch -q . HEAD:someone", "someone"),
    ("git branch -f someone HEAD", "someone"),
    # A teammate's branch.
    (f"git update-ref refs/heads/{TESTER} $NEW", TESTER),
    # Making and deleting branches.
    ("git checkout -q -b mine", "mine"),
    ("git branch -D someone", "someone"),
    (f"git update-ref -d refs/heads/{TEAM}/integration", "integration"),
    (f"git checkout -q --detach && git branch -D {DEVELOPER}", DEVELOPER),
    ("git branch -m someone else", "someone"),
    # Tags stay where they are.
    ("git tag -f v1 HEAD", "refs/tags/v1"),
    ("git update-ref refs/tags/v1 $NEW", "refs/tags/v1"),
    ("git tag -d v1", "refs/tags/v1"),
    # What all worktrees share.
    ("echo two > file && git stash", "refs/stash"),
    ("git update-ref refs/orchestrator/snapshots/a1b2c3/developer/x HEAD", "refs/orchestrator"),
    ("git replace $NEW HEAD~1", "refs/replace"),
]


@pytest.mark.parametrize(("command", "named"), REFUSED, ids=[command for command, _ in REFUSED])
def test_git_refuses_what_is_not_the_agents(made: Repository, command: str, named: str) -> None:
    new = made.commit()
    made.words()
    before = made.refs()
    done = subprocess.run(
        ["sh", "-c", f"set -e\n{command}"],
        cwd=made.worktree,
        env={"PATH": os.environ["PATH"], "HOME": str(made.folder), "NEW": new, "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "tmux-orchestrator: refused to" in done.stderr and named in done.stderr
    assert made.refs() == before, "nothing has moved"
    assert [word.kind for word in made.words()] == ["refused"]


ALLOWED = [
    # The daily work on one's own branch, rewriting included.
    "git commit -q --allow-empty -m x",
    "git commit -q --amend --allow-empty -m y",
    "git reset -q --hard HEAD~1",
    "git merge -q --no-edit main",
    "git rebase -q main",
    f"git merge -q {TESTER}",
    "git checkout -q --detach && git commit -q --allow-empty -m loose",
    f"git checkout -q someone && git checkout -q {DEVELOPER}",
    f"git update-ref refs/heads/{TEAM}/integration HEAD",
    "git tag v2",
    "git bisect start HEAD HEAD~1 && git bisect reset",
    "git notes add -m note HEAD",
]


@pytest.mark.parametrize("command", ALLOWED)
def test_git_lets_the_agent_work(made: Repository, command: str) -> None:
    made.commit()
    done = subprocess.run(
        ["sh", "-c", f"set -e\n{command}"],
        cwd=made.worktree,
        env={"PATH": os.environ["PATH"], "HOME": str(made.folder), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "refused" not in [word.kind for word in made.words()]


class TestElsewhere:
    def test_the_users_own_checkout_and_other_worktrees_are_free(self, made: Repository) -> None:
        for place in (made.project, made.folder / "worktrees" / "tester"):
            made.commit(at=place)
            made.ok("branch", "-f", "someone", "HEAD", at=place)
        assert made.words() == []

    def test_a_worktree_whose_guards_are_lifted_is_free(self, made: Repository) -> None:
        guards.disarm(made.worktree, agent_id=AGENT)
        made.ok("checkout", "-q", "-b", "mine")
        guards.disarm(made.worktree, agent_id=AGENT)
        assert made.ok("config", "--worktree", "--default", "", "--get", "core.hooksPath") == ""

    def test_guards_of_somebody_else_are_not_lifted(self, made: Repository) -> None:
        guards.disarm(made.worktree, agent_id=AGENT + 1)
        assert made.git("checkout", "-q", "-b", "mine").returncode != 0

    def test_a_state_home_that_is_gone_holds_nobody(self, made: Repository) -> None:
        (guards.folder_of(made.home, AGENT) / "rules").unlink()
        made.ok("checkout", "-q", "-b", "mine")

    def test_a_repository_of_its_own_inside_the_worktree_is_free(self, made: Repository) -> None:
        inner = made.worktree / "inner"
        made.ok("init", "-q", str(inner))
        made.commit("Inner", at=inner)
        made.ok("checkout", "-q", "-b", "other", at=inner)

    def test_a_checkout_that_names_its_own_worktree_still_does(self, made: Repository) -> None:
        # As the checkout of a submodule does: core.worktree would hold for every worktree.
        other = made.folder / "other"
        made.ok("init", "-q", "--separate-git-dir", str(made.folder / "store.git"), str(other), at=made.folder)
        made.ok("config", "core.worktree", str(other), at=other)
        made.commit("Start", at=other)
        linked = made.folder / "linked"
        made.ok("worktree", "add", "-q", "-b", DEVELOPER, str(linked), at=other)
        rules = Rules("a1b2c3", "developer", DEVELOPER, f"{TEAM}/integration")
        for _ in range(2):
            guards.arm(linked, rules, home=made.home, agent_id=AGENT, epoch=1)
        assert Path(made.ok("rev-parse", "--show-toplevel", at=other)) == other
        assert Path(made.ok("rev-parse", "--show-toplevel", at=linked)) == linked
        assert made.git("branch", "mine", at=linked).returncode != 0
        made.ok("branch", "mine", at=other)

    def test_what_agents_have_resolved_is_not_done_to_the_users_merges(self, made: Repository) -> None:
        assert made.ok("config", "rerere.enabled") == "true"
        assert made.ok("config", "rerere.enabled", at=made.project) == "false"

    def test_a_user_who_has_rerere_keeps_it(self, made: Repository) -> None:
        made.ok("config", "--worktree", "--unset", "rerere.enabled", at=made.project)
        made.ok("config", "--local", "rerere.enabled", "true", at=made.project)
        made.arm()
        assert made.ok("config", "rerere.enabled", at=made.project) == "true"


class TestPolicy:
    def test_the_example_opens_what_it_says(self) -> None:
        assert boundaries.read_openings(ROOT / "policy.example.yaml") == (Opening("devops", ("refs/heads/deploy/*",)),)

    def test_one_that_is_wrong_stops_a_launch_before_anything_is_made(self, bench: Bench) -> None:
        project = bench.project()
        policy = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "policy.yaml"
        policy.parent.mkdir(parents=True)
        policy.write_text("git:\n  - role: devops\n    refs: [main]\n")
        done = bench.door("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--agent", "rehearsal")
        assert done.code == 1 and f"{policy}: entry 1 of `git`: 'main' is no name of refs" in done.err
        assert not (bench.folder / "webapp-tmux-worktrees").exists() and bench.tmux.panes() == []

    def test_what_a_policy_opens_is_open(self, made: Repository) -> None:
        made.arm(free=("refs/heads/deploy/*", "refs/stash"))
        made.ok("branch", "deploy/now")
        made.ok("branch", "-D", "deploy/now")
        assert made.git("branch", "deployed").returncode != 0
        (made.worktree / "file").write_text("two\n")
        made.ok("stash")

    def test_a_pattern_is_of_refs_and_not_of_files(self, made: Repository) -> None:
        (made.worktree / "refs" / "heads").mkdir(parents=True)
        (made.worktree / "refs" / "heads" / "a").touch()
        made.arm(free=("refs/heads/*",))
        made.ok("branch", "zzz")


class TestPush:
    def test_ones_own_branch_and_integration_may_be_pushed(self, made: Repository, remote: Path) -> None:
        made.commit()
        made.ok("push", "-q", "origin", DEVELOPER, f"HEAD:{TEAM}/integration", "v1")
        made.commit()
        made.ok("push", "-q", "origin", DEVELOPER)

    PUSHES = (
        # The starting branch, also when git would have been content.
        (("origin", "HEAD:main"), "main"),
        (("origin", "HEAD:new"), "new"),
        # A deletion, and a tag that moves.
        (("origin", f":{DEVELOPER}"), DEVELOPER),
        (("origin", "+HEAD:refs/tags/v1"), "v1"),
        # One's own branch, by force over what somebody else has pushed.
        (("--force", "origin", f"HEAD:{DEVELOPER}"), "force"),
        (("--force-with-lease", "origin", f"HEAD:{DEVELOPER}"), "force"),
    )

    @pytest.mark.parametrize(("words", "named"), PUSHES)
    def test_other_pushes_are_refused(self, made: Repository, remote: Path, words: tuple[str, ...], named: str) -> None:
        made.commit()
        made.ok("push", "-q", "origin", DEVELOPER, "v1")
        made.commit("Other", "--amend")
        before = made.ok("for-each-ref", at=remote)
        done = made.git("push", *words)
        assert done.returncode != 0
        assert "tmux-orchestrator: refused to" in done.stderr and named in done.stderr
        assert made.ok("for-each-ref", at=remote) == before

    def test_a_policy_may_allow_force(self, made: Repository, remote: Path) -> None:
        made.arm(forced=(f"refs/heads/{DEVELOPER}",))
        made.commit()
        made.ok("push", "-q", "origin", DEVELOPER)
        made.commit("Other", "--amend")
        made.ok("push", "-q", "--force", "origin", DEVELOPER)

    @pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="told by /proc")
    def test_a_push_around_the_guard_is_told(self, made: Repository, remote: Path) -> None:
        made.commit()
        made.words()
        made.ok("push", "-q", "--no-verify", "origin", "HEAD:main")
        assert [(word.kind, word.ref) for word in made.words()] == [("unverified", "refs/remotes/origin/main")]
        made.ok("fetch", "-q", "origin")
        assert made.words() == []


class TestSignature:
    def trailers(self, made: Repository, commit: str = "HEAD") -> dict[str, str]:
        said = made.ok("log", "-1", "--format=%(trailers:unfold)", commit)
        return dict(line.split(": ", 1) for line in said.splitlines() if line)

    def test_a_commit_tells_where_it_comes_from(self, made: Repository) -> None:
        made.commit("Parse the header\n\nIt may be missing.")
        assert self.trailers(made) == {"Orchestration": "a1b2c3", "Agent-Role": "developer"}
        guards.note_message(made.home, AGENT, 17)
        made.commit("Parse the body", "--no-verify")
        assert self.trailers(made)["Message-Id"] == "17"
        assert made.ok("log", "-1", "--format=%s") == "Parse the body"

    def test_what_was_signed_stays_as_it_was_signed(self, made: Repository) -> None:
        guards.note_message(made.home, AGENT, 17)
        made.commit("One")
        guards.note_message(made.home, AGENT, 18)
        made.ok("commit", "-q", "--amend", "--allow-empty", "--no-edit")
        assert self.trailers(made)["Message-Id"] == "17"
        assert made.ok("log", "-1", "--format=%B").count("Message-Id") == 1

    def test_a_merge_is_signed_and_a_fast_forward_is_not(self, made: Repository) -> None:
        made.commit("Theirs", at=made.folder / "worktrees" / "tester")
        made.ok("merge", "-q", "--no-ff", "--no-edit", TESTER)
        assert self.trailers(made)["Agent-Role"] == "developer"
        assert made.ok("log", "-1", "--format=%s") == f"Merge branch '{TESTER}' into {DEVELOPER}"
        assert made.ok("log", "-1", "--format=%B").count("Agent-Role") == 1

    def test_an_empty_message_stays_empty(self, made: Repository) -> None:
        done = made.git("commit", "--allow-empty")
        assert done.returncode != 0 and "empty commit message" in done.stderr

    def test_a_message_from_an_editor_is_signed(self, made: Repository) -> None:
        made.ok("commit", "-q", "--allow-empty", GIT_EDITOR="echo Written >")
        assert self.trailers(made)["Orchestration"] == "a1b2c3"


class TestWords:
    def test_what_moves_is_told_and_wakes_the_daemon(self, made: Repository) -> None:
        pipe = host.make_wake_pipe(made.home)
        new = made.commit()
        (word,) = made.words()
        assert (word.kind, word.new, word.ref) == ("moved", new, f"refs/heads/{DEVELOPER}")
        with host.Watch() as watch:
            assert watch.wait(pipe, 0), "a byte is in the pipe"
        os.close(pipe)

    @pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="told by /proc")
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("-m", "x"), False),
            (("--no-verify", "-m", "x"), True),
            (("-n", "-m", "x"), True),
            (("-qnm", "x"), True),
            # -m takes the rest of its word: it is a message.
            (("-qm", "nothing"), False),
        ],
    )
    def test_a_commit_without_its_checks_is_told(self, made: Repository, words: tuple[str, ...], told: bool) -> None:
        made.ok("commit", "-q", "--allow-empty", *words)
        assert ("unverified" in [word.kind for word in made.words()]) is told

    def test_nobody_is_held_up_without_a_state_home_to_tell(self, made: Repository) -> None:
        (made.home / "spool").rmdir()
        made.commit()

    def test_what_is_no_word_is_none(self) -> None:
        assert guards.read(b"moved\t0000\tabc\trefs/heads/x\n") == Word("moved", "", "abc", "refs/heads/x")
        assert guards.read(b"moved\t0\t1\n") is None
        assert guards.read(b"danced\t0\t1\trefs/heads/x\n") is None
        assert guards.read(b"") is None


class TestUsersHooks:
    def test_the_users_hooks_run_too_with_their_input(self, made: Repository, remote: Path) -> None:
        log = made.folder / "log"
        for name in ("pre-commit", "commit-msg", "post-commit", "post-checkout", "post-merge"):
            made.hook(name, f'echo "{name} $#" >> "{log}"')
        made.hook("pre-push", f'echo "pre-push $1 $(cat)" >> "{log}"')
        made.commit()
        assert log.read_text().split() == ["pre-commit", "0", "commit-msg", "1", "post-commit", "0"]
        made.ok("push", "-q", "origin", DEVELOPER)
        assert f"pre-push origin refs/heads/{DEVELOPER} " in log.read_text()

    def test_the_users_hook_may_still_refuse(self, made: Repository) -> None:
        made.hook("pre-commit", "echo not so >&2; exit 3")
        done = made.git("commit", "--allow-empty", "-m", "x")
        assert done.returncode != 0 and "not so" in done.stderr

    def test_hooks_in_a_folder_of_the_project_run_where_git_runs_them(self, made: Repository) -> None:
        made.ok("config", "core.hooksPath", ".hooks", at=made.project)
        made.arm()
        log = made.folder / "log"
        made.hook("pre-commit", f'pwd >> "{log}"', made.worktree / ".hooks")
        made.commit()
        assert Path(log.read_text().strip()) == made.worktree

    def test_a_hook_of_the_users_for_transactions_hears_of_each(self, made: Repository) -> None:
        log = made.folder / "log"
        made.hook("reference-transaction", f'echo "$1" >> "{log}"; cat >> "{log}"')
        made.commit()
        said = log.read_text()
        assert said.count("prepared") == said.count("committed") == 1
        assert said.count(f"refs/heads/{DEVELOPER}") == 2
