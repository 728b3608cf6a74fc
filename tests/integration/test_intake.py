"""The way into the queue: several specs, folders, patterns and batch files; all is checked before any is queued."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.errors import ExitCode
from tests.conftest import ROOT, SPEC, Bench, wait_for
from tests.integration.test_bad_input import GOOD_VERSION, LOGGED_IN, launch_of_claude, refused

DOOR = "auto_orchestrate.py"
ALONE = ("--roles", "orchestrator", "--agent", "rehearsal")


def configure(bench: Bench, text: str = "agent: rehearsal\nauto_start: false\n") -> None:
    """By default nothing that is queued is started."""
    path = bench.folder / "config.yaml"
    path.write_text(text)
    bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(path)


def write(folder: Path, *names: str) -> list[Path]:
    """Specs of these names in a folder."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {path.stem}\n\n{SPEC}")
    return paths


def queued(bench: Bench) -> list[dict[str, Any]]:
    if not (bench.home / "orchestrator.db").exists():
        return []
    return bench.rows("SELECT * FROM queue_entries ORDER BY id")


def names(bench: Bench) -> list[tuple[str, str]]:
    """Spec and project of every entry, in their order."""
    return [(Path(entry["spec_path"]).name, Path(entry["project"]).name) for entry in queued(bench)]


@pytest.fixture
def quiet(bench: Bench) -> Bench:
    configure(bench)
    return bench


class TestWhatIsQueued:
    def test_several_specs_are_one_batch_in_the_order_in_which_they_are_named(self, quiet: Bench) -> None:
        webapp, shop = quiet.project("webapp"), quiet.project("shop")
        write(webapp, "b.md", "a.md")
        done = quiet.ok(DOOR, *specs(webapp / "b.md", shop / "spec.md", webapp / "a.md"))
        assert names(quiet) == [("b.md", "webapp"), ("spec.md", "shop"), ("a.md", "webapp")]
        assert {entry["batch_id"] for entry in queued(quiet)} == {1}
        assert [line.partition(":")[0] for line in done.out.splitlines()] == [f"queued entry {n}" for n in (1, 2, 3)]
        assert "auto_start is off" in done.err
        assert quiet.rows("SELECT 1 FROM orchestrations") == [] and quiet.tmux.panes() == []

    def test_one_spec_is_launched_at_once_unless_it_is_a_batch(self, quiet: Bench) -> None:
        project = quiet.project()
        quiet.ok(DOOR, *specs(project / "spec.md"), "--batch")
        assert names(quiet) == [("spec.md", "webapp")]
        quiet.ok(DOOR, *specs(project / "spec.md"), *ALONE)
        assert len(queued(quiet)) == 1 and len(quiet.rows("SELECT 1 FROM orchestrations")) == 1

    def test_a_folder_is_its_markdown_files_by_name(self, quiet: Bench) -> None:
        project = quiet.project()
        write(project / "specs", "b.md", "A.MD", "c d.md", ".hidden.md", "README.md", "notes.txt", "deeper/e.md")
        (project / "specs" / "folder.md").mkdir()
        quiet.ok(DOOR, "--spec", "specs/", cwd=project)
        assert [spec for spec, _ in names(quiet)] == ["A.MD", "b.md", "c d.md"]

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("specs/user-*.md", ["user-a.md", "user-b.md"]),
            ("{project}/specs/user-?.md", ["user-a.md", "user-b.md"]),
            ("../webapp/specs/*.md", ["admin.md", "user-a.md", "user-b.md"]),
            ("**/*.md", ["spec.md", "admin.md", "deep.md", "user-a.md", "user-b.md"]),
            # What a person names is what they get, but for folders.
            ("specs/*n*", ["admin.md", "notes.txt"]),
            ("*/README.md", ["README.md"]),
        ],
    )
    def test_a_quoted_pattern(self, quiet: Bench, pattern: str, found: list[str]) -> None:
        project = quiet.project()
        write(project / "specs", "user-b.md", "user-a.md", "admin.md", "README.md", "notes.txt", "more/deep.md")
        quiet.ok(DOOR, "--spec", pattern.format(project=project), cwd=project)
        assert sorted(spec for spec, _ in names(quiet)) == sorted(found)

    def test_a_quoted_pattern_below_the_home(self, quiet: Bench) -> None:
        home = Path(quiet.environment["HOME"])
        project = quiet.project()
        write(home / "specs", "feature-b.md", "feature-a.md", "other.md")
        quiet.ok(DOOR, "--project", str(project), "--spec", "~/specs/feature-*.md")
        assert names(quiet) == [("feature-a.md", "webapp"), ("feature-b.md", "webapp")]

    def test_a_file_whose_name_looks_like_a_pattern_is_that_file(self, quiet: Bench) -> None:
        project = quiet.project()
        write(project, "a[1].md", "a1.md")
        quiet.ok(DOOR, "--batch", "--spec", "a[1].md", cwd=project)
        assert names(quiet) == [("a[1].md", "webapp")]

    def test_a_pattern_with_one_match_is_queued_too(self, quiet: Bench) -> None:
        project = quiet.project()
        quiet.ok(DOOR, "--spec", "sp*.md", cwd=project)
        assert names(quiet) == [("spec.md", "webapp")]

    def test_a_spec_that_is_named_twice_is_one(self, quiet: Bench) -> None:
        project = quiet.project()
        (project / "link.md").symlink_to("spec.md")
        quiet.ok(DOOR, *specs("spec.md", "./spec.md", "*.md", "link.md"), "--again", cwd=project)
        assert names(quiet) == [("spec.md", "webapp")]

    def test_the_same_again_is_the_same_entry(self, quiet: Bench) -> None:
        project = quiet.project()
        words = (DOOR, "--batch", "--spec", str(project / "spec.md"))
        quiet.ok(*words)
        assert "entry 1 is this already (queued)" in quiet.ok(*words).out
        shown = quiet.ok(*words, "--dry-run")
        assert "is entry 1 already" in shown.out and shown.out.endswith("nothing was changed\n")
        assert len(queued(quiet)) == 1
        (row,) = quiet.ok(*words, "--again", "--json").json
        assert (row["id"], row["new"]) == (2, True)

    def test_one_project_for_all(self, quiet: Bench) -> None:
        project = quiet.project()
        paths = write(quiet.folder / "elsewhere", "one.md", "two.md")
        quiet.ok(DOOR, *specs(*paths), "--project", str(project))
        assert names(quiet) == [("one.md", "webapp"), ("two.md", "webapp")]

    def test_what_belongs_to_an_entry_is_kept_with_it(self, quiet: Bench) -> None:
        project = quiet.project()
        words = ("--roles", "orchestrator,developer", "--roles", "tester", "--plan", "max5", "--size", "large")
        more = ("--team-type", "web_application", "--agent", "rehearsal", "--priority", "-7", "--tag", "one")
        quiet.ok(
            *(DOOR, "--batch", "--spec", str(project / "spec.md"), *words, *more),
            *("--tag", "two words", "--budget", "90"),
        )
        (entry,) = queued(quiet)
        assert json.loads(entry["options"]) == {
            "roles": ["orchestrator", "developer", "tester"],
            "team_type": "web_application",
            "plan": "max5",
            "size": "large",
            "agent": "rehearsal",
        }
        assert (entry["priority"], json.loads(entry["tags"])) == (-7, ["one", "two words"])
        assert entry["budget_minutes"] == 90
        story = quiet.ok("scheduler.py", "--queue-status", "1").out
        assert "two words" in story and "90 min" in story and "roles orchestrator, developer, tester" in story

    def test_a_dry_run_shows_it_all_and_queues_nothing(self, quiet: Bench) -> None:
        project = quiet.project()
        write(project, "a.md")
        words = (DOOR, *specs(project / "a.md", project / "spec.md"), *ALONE, "--dry-run")
        done = quiet.ok(*words)
        assert done.out.splitlines()[0] == "would queue:" and done.out.splitlines()[-1] == "nothing was changed"
        assert f"a.md in {project}" in done.out and "team orchestrator" in done.out
        rows = quiet.ok(*words, "--json").json
        assert [(Path(row["spec"]).name, row["team"], row["entry"]) for row in rows] == [
            ("a.md", ["orchestrator"], None),
            ("spec.md", ["orchestrator"], None),
        ]
        assert queued(quiet) == []

    def test_a_dry_run_says_that_no_model_was_asked(self, quiet: Bench) -> None:
        words = launch_of_claude(quiet, GOOD_VERSION, LOGGED_IN)
        words = (*words, "--batch", "--dry-run")
        assert "no model was asked" in quiet.ok(*words).out
        assert "no model was asked" not in quiet.ok(*words, "--no-ai").out
        assert "no model was asked" not in quiet.ok(*words, "--agent", "rehearsal").out

    def test_whether_a_model_may_be_asked_is_kept_with_the_entry(self, quiet: Bench) -> None:
        project = quiet.project()
        write(project, "a.md", "b.md")
        quiet.ok("scheduler.py", "--queue-add", str(project / "a.md"), str(project), "--no-ai")
        quiet.ok("scheduler.py", "--queue-add", str(project / "b.md"), str(project))
        assert [json.loads(entry["options"]) for entry in queued(quiet)] == [{"no_ai": True}, {}]

    def test_the_text_that_was_queued_is_what_is_worked(self, quiet: Bench) -> None:
        # With the marks of another system: they stay.
        project = quiet.project()
        (project / "a.md").write_bytes("\ufeff# Größe\r\n\r\nText\r\n".encode())
        quiet.ok(DOOR, "--batch", "--spec", str(project / "a.md"))
        assert queued(quiet)[0]["spec_text"] == "# Größe\r\n\r\nText\r\n"


def specs(*paths: object) -> list[str]:
    return [word for path in paths for word in ("--spec", str(path))]


def unreadable(path: Path) -> None:
    if os.geteuid():
        path.write_text(SPEC)
        path.chmod(0)
    elif Path("/proc/self/mem").exists():
        path.symlink_to("/proc/self/mem")  # nobody may read its beginning
    else:
        pytest.skip("root reads everything here")


BAD: list[tuple[Callable[[Path], object], ExitCode, str]] = [
    (lambda path: None, ExitCode.NOT_FOUND, "no spec at {spec}"),
    (lambda path: path.symlink_to("nowhere.md"), ExitCode.NOT_FOUND, "no spec at {spec}"),
    (lambda path: os.mkfifo(path), ExitCode.FAILED, "the spec {spec} is not a file"),
    (lambda path: path.write_bytes(b""), ExitCode.FAILED, "the spec {spec} is empty"),
    (lambda path: path.write_bytes(b"# A\n\0"), ExitCode.FAILED, "the spec {spec} is a binary file"),
    (
        lambda path: path.write_bytes(b"\xff\xfe#"),
        ExitCode.FAILED,
        "the spec {spec} is not UTF-8 text (line 1, byte 0)",
    ),
    (lambda path: path.write_bytes(b"x" * 10_000_000), ExitCode.FAILED, "the spec {spec} has more than 1,000,000"),
    (unreadable, ExitCode.FAILED, "the spec {spec} cannot be read: "),
]
KINDS = ["missing", "a_link_to_nowhere", "a_pipe", "empty", "binary", "not_utf_8", "10_mb", "unreadable"]
HOW = ["named", "in_a_folder", "new_project"]
#: A folder does not hold what is missing.
BAD_ONES = [(how, *bad) for how in HOW for bad in (BAD[1:] if how == "in_a_folder" else BAD)]
IDS_OF_BAD_ONES = [f"{how}-{kind}" for how in HOW for kind in (KINDS[1:] if how == "in_a_folder" else KINDS)]


class TestWhatIsWrong:
    @pytest.mark.parametrize(("how", "make", "code", "sentence"), BAD_ONES, ids=IDS_OF_BAD_ONES)
    def test_a_spec_that_is(
        self, quiet: Bench, how: str, make: Callable[[Path], object], code: ExitCode, sentence: str
    ) -> None:
        project = quiet.project()
        (good,) = write(project / "specs", "a-good-one.md")
        spec = project / "specs" / "wanted.md"
        make(spec)
        words = ["--spec", str(spec.parent)] if how == "in_a_folder" else specs(good, spec)
        more = ["--new-project"] if how == "new_project" else []
        refused(quiet, code, DOOR, *words, *more, says=(sentence.format(spec=spec),))
        assert queued(quiet) == []

    def test_all_that_is_wrong_is_told_at_once(self, quiet: Bench) -> None:
        project = quiet.project()
        (project / "empty.md").write_text("")
        (quiet.folder / "plain").mkdir()
        (alone,) = write(quiet.folder / "plain", "alone.md")
        words = specs("spec.md", "nowhere.md", "empty.md", alone, "none/*.md", "gone/")
        says = (
            f"no spec at {project / 'nowhere.md'}",
            f"the spec {project / 'empty.md'} is empty",
            f"{alone} is not in a git repository",
            "no spec matches none/*.md",
            f"no spec at {project / 'gone'}",
        )
        done = refused(quiet, ExitCode.NOT_FOUND, DOOR, *words, says=says, cwd=project)
        assert len(done.err.splitlines()) == 6
        assert queued(quiet) == []

    def test_the_exit_code_is_that_of_the_first(self, quiet: Bench) -> None:
        project = quiet.project()
        (project / "empty.md").write_text("")
        words = specs("empty.md", "nowhere.md")
        refused(quiet, ExitCode.FAILED, DOOR, *words, says=("is empty", "no spec at"), cwd=project)

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            ((), ("no spec in the folder", "the *.md files in it")),
            (("README.md", ".hidden.md", "notes.txt"), ("no spec in the folder", "README.md is left out")),
        ],
    )
    def test_a_folder_without_specs(self, quiet: Bench, names: tuple[str, ...], says: tuple[str, ...]) -> None:
        folder = quiet.project() / "specs"
        folder.mkdir()
        write(folder, *names)
        refused(quiet, ExitCode.NOT_FOUND, DOOR, "--spec", str(folder), says=(str(folder), *says))

    @pytest.mark.parametrize("spec", ["", "   "])
    def test_an_empty_word(self, quiet: Bench, spec: str) -> None:
        # What a shell makes of "$UNSET": it is not the folder where somebody happens to be.
        project = quiet.project()
        write(project, "a.md")
        refused(quiet, ExitCode.USAGE, DOOR, "--batch", "--spec", spec, says=("is no spec",), cwd=project)

    def test_a_wrong_word_about_the_team_is_told_once(self, quiet: Bench) -> None:
        project = quiet.project()
        write(project, "a.md")
        words = specs(project / "a.md", project / "spec.md")
        done = refused(quiet, ExitCode.USAGE, DOOR, *words, "--roles", "wizard", says=("unknown role wizard",))
        assert done.err.count("wizard") == 1
        refused(quiet, ExitCode.USAGE, DOOR, *words, "--team-type", "circus", says=("unknown team type 'circus'",))
        assert queued(quiet) == []

    def test_a_project_in_which_no_team_could_work(self, quiet: Bench) -> None:
        project = quiet.project()
        (quiet.folder / "webapp-tmux-worktrees").write_text("mine")
        says = ("webapp-tmux-worktrees is no folder, and the worktrees go there",)
        refused(quiet, ExitCode.FAILED, DOOR, "--batch", "--spec", str(project / "spec.md"), says=says)

    def test_a_live_team_is_no_hindrance(self, quiet: Bench) -> None:
        quiet.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "50"
        project = quiet.project()
        quiet.ok(DOOR, "--spec", str(project / "spec.md"), *ALONE)
        quiet.ok(DOOR, "--batch", "--spec", str(project / "spec.md"), *ALONE)
        assert len(queued(quiet)) == 1

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--spec", "spec.md", "--again"), "--again: one spec is launched at once"),
            (("--spec", "spec.md", "--priority", "0"), "--priority: one spec"),
            (("--spec", "spec.md", "--tag", "x", "--budget", "5"), "--tag, --budget: one spec"),
            (("--spec", "spec.md", "--new-project", "--tag", "x"), "--tag: one spec"),
            (("--spec", "spec.md", "--force"), "--force: only --new-project"),
            (("--spec", "spec.md", "--batch", "--force"), "--force: only --new-project"),
            (("--spec", "spec.md", "--new-project", "--project", "."), "leave one of them out"),
            (("--batch",), "name a spec with --spec"),
            (("--new-project",), "name a spec with --spec"),
            (("--resume", "--batch"), "--batch: --resume goes on"),
            (("--resume", "--new-project", "--force"), "--new-project, --force: --resume goes on"),
            (("--resume", "--batch-file", "x.yaml"), "--batch-file: --resume goes on"),
            (("--batch-file", "x.yaml", "--spec", "spec.md"), "--spec: with --batch-file"),
            (("--batch-file", "x.yaml", "--new-project", "--size", "small"), "--new-project, --size: with --batch"),
            (("--batch-file", "x.yaml", "--priority", "0", "--tag", "a"), "--priority, --tag: with --batch-file"),
            (("--spec", "spec.md", "--batch", "--tag", "two\nlines"), "is no tag"),
            (("--spec", "spec.md", "--batch", "--priority", "9" * 30), "--priority"),
            (("--spec", "spec.md", "--batch", "--budget", "0"), "--budget"),
        ],
        ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
    )
    def test_words_that_mean_nothing_together(self, quiet: Bench, words: tuple[str, ...], says: str) -> None:
        project = quiet.project()
        refused(quiet, ExitCode.USAGE, DOOR, *words, says=(says,), cwd=project)


class TestBatchFiles:
    def test_everything_in_it_is_seen_from_the_file(self, quiet: Bench) -> None:
        webapp, shop = quiet.project("webapp"), quiet.project("shop")
        write(shop / "ideas", "b.md", "a.md", "README.md")
        path = quiet.folder / "batches" / "monday.yaml"
        write(path.parent, "here.md")
        path.write_text(
            "defaults: {size: small, tags: [monday], agent: rehearsal}\n"
            "specs:\n"
            "  - spec: here.md\n"
            f"    project: ../{webapp.name}\n"
            "    priority: 3\n"
            "  - spec: ../shop/ideas\n"
            "  - {spec: ../shop/ideas/b*.md, project: ../webapp, tags: [other], roles: [orchestrator]}\n"
        )
        quiet.ok(DOOR, "--batch-file", "batches/monday.yaml")
        assert names(quiet) == [("here.md", "webapp"), ("a.md", "shop"), ("b.md", "shop"), ("b.md", "webapp")]
        assert [entry["priority"] for entry in queued(quiet)] == [3, 0, 0, 0]
        assert [json.loads(entry["tags"]) for entry in queued(quiet)] == [["monday"]] * 3 + [["other"]]
        assert json.loads(queued(quiet)[3]["options"]) == {
            "roles": ["orchestrator"],
            "size": "small",
            "agent": "rehearsal",
        }
        assert {entry["batch_id"] for entry in queued(quiet)} == {1}

    def test_json_is_the_same(self, quiet: Bench) -> None:
        project = quiet.project()
        entry = {"spec": str(project / "spec.md"), "budget_minutes": 30, "agent": "rehearsal"}
        path = quiet.folder / "batch.json"
        path.write_text(json.dumps({"specs": [entry]}, indent="\t"))
        quiet.ok(DOOR, "--batch-file", str(path))
        assert [entry["budget_minutes"] for entry in queued(quiet)] == [30]

    def test_the_example(self, quiet: Bench) -> None:
        # Copied: its new project would be made beside the checkout, where somebody may have made it.
        copy = quiet.folder / "examples" / "batch.yaml"
        write(copy.parent, "demo-spec.md", "checkout.md")
        text = (ROOT / "examples" / copy.name).read_text()
        copy.write_text(text)
        rows = quiet.ok(DOOR, "--batch-file", str(copy), "--dry-run", "--json").json
        assert [(Path(row["spec"]).name, Path(row["project"]).name) for row in rows] == [("demo-spec.md", "demo-spec")]
        # And what it only tells of.
        copy.write_text(text.replace("\n  # - spec", "\n  - spec").replace("\n  #   ", "\n    "))
        projects = Path(quiet.environment["HOME"]) / "projects"
        projects.mkdir()
        quiet.project().rename(projects / "webapp")
        rows = quiet.ok(DOOR, "--batch-file", str(copy), "--dry-run", "--json").json
        assert [row["team"] for row in rows][1] == ["orchestrator", "developer", "tester"]

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("b.yaml", "specs: [a", ("b.yaml is not valid YAML in line 1",)),
            ("b.yaml", "specs:\n  - spec: a.md\n   project: b\n", ("b.yaml is not valid YAML in line 3",)),
            ("b.yaml", b"specs: \xe9", ("it is not UTF-8 text (byte 7)",)),
            ("b.yaml", "specs: " + "[" * 5000, ("b.yaml is nested too deeply",)),
            ("b.json", "{'specs'}", ("b.json is not valid JSON in line 1",)),
            ("b.json", b"\xe9", ("it is not UTF-8 text (byte 0)",)),
            ("b.json", "[" * 200_000, ("b.json is nested too deeply",)),
            ("b.json", '{"specs": [{"spec": "a.md", "priority": ' + "9" * 5000 + "}]}", ("b.json",)),
            ("b.yaml", "", ("b.yaml: it must hold `name: value` lines, not nothing",)),
            ("b.yaml", "x" * 1_000_001, ("b.yaml has more than 1,000,000 bytes",)),
            (
                "b.yaml",
                "specs: [{spec: a.md, sise: small}, {spec: b.md, priority: high}]",
                ("entry 1 has an unknown line 'sise'; did you mean 'size'?", "entry 2: priority must be a whole"),
            ),
            (
                "b.yaml",
                "specs: [{spec: webapp/spec.md, roles: [wizard]}, {spec: gone.md}, {spec: webapp/spec.md}]",
                ("entry 1: unknown role wizard", "entry 2: no spec at"),
            ),
            (
                "b.yaml",
                "specs: [{spec: webapp/spec.md}, {spec: webapp/spec.md, size: small}]",
                ("entry 2: ", "webapp/spec.md is named twice for ", "with different options"),
            ),
        ],
        ids=range(13),
    )
    def test_one_that_is_wrong(self, quiet: Bench, name: str, text: str | bytes, says: tuple[str, ...]) -> None:
        quiet.project()
        path = quiet.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(quiet, ExitCode.FAILED, DOOR, "--batch-file", str(path), says=says)
        assert queued(quiet) == []

    @pytest.mark.parametrize(
        ("make", "code", "says"),
        [
            (lambda path: None, ExitCode.NOT_FOUND, "no batch file at"),
            (lambda path: path.mkdir(), ExitCode.FAILED, "is not a file"),
            (lambda path: os.mkfifo(path), ExitCode.FAILED, "is not a file"),
            (unreadable, ExitCode.FAILED, "cannot be read"),
        ],
        ids=["missing", "a_folder", "a_pipe", "unreadable"],
    )
    def test_one_that_cannot_be_read(
        self, quiet: Bench, make: Callable[[Path], object], code: ExitCode, says: str
    ) -> None:
        path = quiet.folder / "batch.yaml"
        make(path)
        refused(quiet, code, DOOR, "--batch-file", str(path), says=(says, str(path)))

    def test_force_without_a_new_project(self, quiet: Bench) -> None:
        project = quiet.project()
        (project / "batch.yaml").write_text("specs: [{spec: spec.md}]\n")
        words = (DOOR, "--batch-file", str(project / "batch.yaml"), "--force")
        refused(quiet, ExitCode.USAGE, *words, says=("no entry of the batch file makes a new project",))


class TestFromEndToEnd:
    def test_two_specs_of_two_projects_are_worked_to_their_end(self, bench: Bench) -> None:
        configure(bench, "agent: rehearsal\nqueue: {linger_minutes: 0.005}\n")
        one, two = bench.project("one"), bench.project("two")
        done = bench.ok(DOOR, *specs(one / "spec.md", two / "spec.md"), "--roles", "orchestrator")
        assert "started the scheduler" in done.err

        def is_over() -> bool:
            return [entry["status"] for entry in queued(bench)] == ["succeeded"] * 2

        wait_for(is_over, "both specs to be done", seconds=90)
        first, second = bench.rows("SELECT started_at, ended_at FROM attempts ORDER BY entry_id")
        assert second["started_at"] >= first["ended_at"]
        teams = bench.rows("SELECT session, unattended FROM orchestrations ORDER BY created_at")
        assert [(team["session"], team["unattended"]) for team in teams] == [("one-impl", 1), ("two-impl", 1)]
        wait_for(lambda: bench.tmux.panes() == [], "their windows to be closed")
        notices = [notice["kind"] for notice in bench.rows("SELECT kind FROM notices ORDER BY id")]
        assert notices == ["completed", "completed", "batch"]

    def test_what_claude_code_is_not_trusted_with_is_told_when_it_is_queued(self, bench: Bench) -> None:
        launch_of_claude(bench, GOOD_VERSION, LOGGED_IN)
        configure(bench, "auto_start: false\n")
        project = bench.folder / "webapp"
        done = bench.ok(DOOR, "--batch", "--spec", str(project / "spec.md"))
        assert re.search(rf"has not been told to trust {project}: run claude once", done.err)
        (Path(bench.environment["HOME"]) / ".claude.json").write_text(
            json.dumps({"projects": {str(project): {"hasTrustDialogAccepted": True}}})
        )
        assert "trust" not in bench.ok(DOOR, "--batch", "--spec", str(project / "spec.md")).err
