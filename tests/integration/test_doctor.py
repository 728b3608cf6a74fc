"""doctor: each thing seen found, missing, wrong, not looked at; real tmux, git and SQLite, a stub for Claude Code."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lib import host, schema, verdicts
from lib.claude import installed
from lib.claude.installed import Installation
from lib.config import ROOT
from lib.errors import NotFound, Unavailable
from lib.models import Program
from tests.agents import a_team
from tests.conftest import Bench

#: A Claude Code that says its version and whether it is logged in, and nothing else.
STUB = """#!/bin/sh
case $1 in
  --version) echo '{version} (Claude Code)' ;;
  auth) echo '{login}'; exit 0 ;;
esac
"""
LOGGED_IN, LOGGED_OUT = '{"loggedIn": true}', '{"loggedIn": false}'


@pytest.fixture
def machine(bench: Bench) -> Bench:
    """A machine on which all is well: a stub of the tested version, a configuration, a state home with a store."""
    programs = bench.folder / "bin"
    programs.mkdir()
    for name in ("uv", "tmux", "git", "sh", "bash"):
        found = shutil.which(name)
        assert found, name
        (programs / name).symlink_to(found)
    bench.environment |= {"PATH": str(programs), "IS_SANDBOX": "1"}
    install(bench)
    settings = bench.folder / "config.yaml"
    settings.write_text("messages_per_minute: 10\n")
    bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(settings)
    bench.db().close()
    return bench


def install(bench: Bench, *, version: str = installed.TESTED_VERSIONS[0], login: str = LOGGED_IN) -> None:
    stub = bench.folder / "bin" / "claude"
    stub.write_text(STUB.replace("{version}", version).replace("{login}", login))
    stub.chmod(0o755)


def look(bench: Bench, *, code: int = 0) -> dict[str, dict[str, Any]]:
    """The findings by their names."""
    done = bench.door("claude_control.py", "doctor", "--json")
    assert done.code == code, done.out + done.err
    return {one["name"]: one for one in done.json["findings"]}


def test_a_machine_on_which_all_is_well(machine: Bench) -> None:
    found = look(machine)
    assert {one["state"] for one in found.values() if one["is_needed"]} == {"found"}
    assert {"python", "uv", "tmux", "git", "claude", "claude login", "store", "scheduler"} <= set(found)


def test_it_changes_nothing_and_says_so_in_lines(machine: Bench) -> None:
    before = {path: path.stat().st_mtime_ns for path in machine.home.rglob("*")}
    done = machine.ok("claude_control.py", "doctor")
    assert {path: path.stat().st_mtime_ns for path in machine.home.rglob("*")} == before
    assert f"claude           found                  {installed.TESTED_VERSIONS[0]}" in done.out


def test_a_new_machine_is_no_broken_one(machine: Bench) -> None:
    shutil.rmtree(machine.home)
    found = look(machine)
    assert (found["state home"]["state"], found["store"]["state"]) == ("missing", "missing")
    assert not machine.home.exists()


class TestTools:
    @pytest.mark.parametrize("tool", ["uv", "tmux", "git"])
    def test_one_is_missing(self, machine: Bench, tool: str) -> None:
        (machine.folder / "bin" / tool).unlink()
        one = look(machine, code=1)[tool]
        assert (one["state"], one["mends"]) == ("missing", "./setup.sh")

    @pytest.mark.parametrize(("tool", "says"), [("tmux", "tmux 2.9a"), ("git", "git version 2.11.0")])
    def test_one_is_too_old(self, machine: Bench, tool: str, says: str) -> None:
        replace(machine.folder / "bin" / tool, f"echo '{says}'")
        one = look(machine, code=1)[tool]
        assert one["state"] == "wrong"
        assert "too old" in one["said"]

    def test_a_tmux_that_nobody_has_tested_is_no_failure(self, machine: Bench) -> None:
        replace(machine.folder / "bin" / "tmux", "echo 'tmux 4.2'")
        one = look(machine, code=5)["tmux"]
        assert (one["state"], one["said"]) == ("found", "4.2; tested were 3.1 to 3.8")

    def test_one_does_not_run(self, machine: Bench) -> None:
        replace(machine.folder / "bin" / "uv", "echo 'no such library' >&2; exit 127")
        one = look(machine, code=1)["uv"]
        assert (one["state"], "no such library" in one["said"]) == ("wrong", True)


class TestClaude:
    def test_it_is_missing(self, machine: Bench) -> None:
        (machine.folder / "bin" / "claude").unlink()
        assert look(machine, code=1)["claude"]["state"] == "missing"
        (machine.folder / "config.yaml").write_text("agent: rehearsal\n")
        assert look(machine)["claude"]["is_needed"] is False

    def test_it_is_too_old(self, machine: Bench) -> None:
        install(machine, version="1.0.80")
        assert look(machine, code=1)["claude"]["state"] == "wrong"

    def test_it_is_logged_out(self, machine: Bench) -> None:
        install(machine, login=LOGGED_OUT)
        one = look(machine, code=1)["claude login"]
        assert (one["state"], one["mends"]) == ("wrong", "claude auth login, then launch again")

    def test_it_does_not_tell(self, machine: Bench) -> None:
        install(machine, login="segmentation fault")
        assert look(machine, code=5)["claude login"]["state"] == "not looked at"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
    def test_it_refuses_the_permission_mode(self, machine: Bench) -> None:
        del machine.environment["IS_SANDBOX"]
        assert look(machine, code=1)["permission mode"]["state"] == "wrong"

    def test_a_version_that_nobody_knows(self, machine: Bench) -> None:
        install(machine, version="9.9.9")
        one = look(machine)["claude probe"]
        assert (one["state"], one["is_needed"], one["mends"]) == ("missing", False, verdicts.PROBE)

    @pytest.mark.parametrize(("failed", "code", "state"), [((), 0, "found"), ((("hooks", "no hook ran"),), 1, "wrong")])
    def test_a_version_that_was_probed(
        self, machine: Bench, failed: tuple[tuple[str, str], ...], code: int, state: str
    ) -> None:
        install(machine, version="9.9.9")
        verdicts.keep(machine.db(), "9.9.9", failed, now=1)
        assert look(machine, code=code)["claude probe"]["state"] == state

    def test_a_version_that_has_failed_is_used_all_the_same(self, machine: Bench) -> None:
        install(machine, version="9.9.9")
        refused = machine.door("claude_control.py", "doctor", "--force")
        assert (refused.code, "no probe of Claude Code 9.9.9 has failed" in refused.err) == (3, True)
        verdicts.keep(machine.db(), "9.9.9", [("hooks", "no hook ran")], now=1)
        assert "although its probe has failed (hooks)" in machine.ok("claude_control.py", "doctor", "--force").out
        one = look(machine)["claude probe"]
        assert (one["state"], "as a person wants it" in one["said"]) == ("found", True)
        assert machine.door("claude_control.py", "doctor", "--force", "--probe").code == 2


class TestFiles:
    def test_a_setting_is_none(self, machine: Bench) -> None:
        (machine.folder / "config.yaml").write_text("permision_mode: auto\n")
        one = look(machine, code=1)["config"]
        assert (one["state"], one["mends"]) == ("wrong", "did you mean 'permission_mode'?")

    def test_a_policy_cannot_be_read(self, machine: Bench) -> None:
        (machine.folder / "policy.yaml").write_text("rules: 3\n")
        assert look(machine, code=1)["policy"]["state"] == "wrong"

    def test_addresses_are_open_to_others(self, machine: Bench) -> None:
        path = machine.folder / "config.yaml"
        path.write_text("notify: {urls: ['ntfy://secret']}\n")
        path.chmod(0o644)
        one = look(machine, code=1)["config mode"]
        assert (one["state"], one["mends"]) == ("wrong", f"chmod 600 {path}")
        path.chmod(0o600)
        assert "config mode" not in look(machine)

    def test_the_state_home_is_open_to_others(self, machine: Bench) -> None:
        machine.home.chmod(0o755)
        one = look(machine, code=1)["state home"]
        assert (one["state"], one["mends"]) == ("wrong", f"chmod 700 {machine.home}")

    def test_the_state_home_is_a_file(self, machine: Bench) -> None:
        shutil.rmtree(machine.home)
        machine.home.write_text("")
        assert look(machine, code=1)["state home"]["state"] == "wrong"
        machine.home.unlink()

    def test_the_store_is_damaged(self, machine: Bench) -> None:
        path = machine.home / "orchestrator.db"
        content = bytearray(path.read_bytes())
        content[4096 * 3 : 4096 * 9] = b"\xff" * (4096 * 6)
        path.write_bytes(content)
        one = look(machine, code=1)["store"]
        assert one["state"] == "wrong"
        assert "damaged" in one["said"]
        assert "cp -a" in one["mends"]

    def test_the_store_is_something_else(self, machine: Bench) -> None:
        (machine.home / "orchestrator.db").write_text("this is a diary " * 500)
        found = look(machine, code=1)
        assert (found["store"]["state"], found["scheduler"]["state"]) == ("wrong", "not looked at")
        (machine.home / "orchestrator.db").unlink()

    def test_a_row_of_the_store_refers_to_nothing(self, machine: Bench) -> None:
        db = sqlite3.connect(machine.home / "orchestrator.db")
        db.execute("INSERT INTO budget_stops VALUES (77, 1, 'ended')")
        db.commit()
        db.close()
        assert "budget_stops" in look(machine, code=1)["store"]["said"]

    def test_the_store_is_of_a_newer_version(self, machine: Bench) -> None:
        db = sqlite3.connect(machine.home / "orchestrator.db")
        db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
        db.close()
        one = look(machine, code=1)["store"]
        assert (one["state"], one["mends"]) == ("wrong", "update the checkout")
        (machine.home / "orchestrator.db").unlink()


class TestScheduler:
    def test_it_should_run(self, machine: Bench) -> None:
        a_team(machine.db(), "orchestrator")
        one = look(machine, code=1)["scheduler"]
        assert (one["state"], one["mends"]) == ("missing", "scheduler.py --daemon")
        with host.lock(machine.home / "scheduler.lock"):
            assert look(machine)["scheduler"]["said"] == "runs"

    def test_it_cannot_be_looked_at(self, machine: Bench) -> None:
        lock = machine.home / "scheduler.lock"
        lock.symlink_to(lock.name)
        assert look(machine, code=5)["scheduler"]["state"] == "not looked at"
        lock.unlink()


class TestTmux:
    def test_its_options_are_told(self, machine: Bench) -> None:
        assert look(machine)["tmux options"]["state"] == "not looked at"
        machine.tmux.run("new-session", "-d", "sleep", "600", ";", "set-option", "-g", "base-index", "7")
        one = look(machine)["tmux options"]
        assert (one["state"], "base-index 7" in one["said"]) == ("found", True)

    def test_the_server_ends_when_nobody_looks(self, machine: Bench) -> None:
        # With exit-empty off it lives on without a session, as it does while somebody is attached.
        machine.tmux.run("new-session", "-d", "sleep", "600", ";", "set-option", "-s", "exit-empty", "off")
        machine.tmux.run("set-option", "-s", "exit-unattached", "on")
        one = look(machine, code=1)["tmux options"]
        assert (one["state"], "exit-unattached" in one["mends"]) == ("wrong", True)
        machine.tmux.run("kill-server")

    def test_the_shell_is_no_program(self, machine: Bench) -> None:
        shell = machine.folder / "bin" / "shell"
        shell.symlink_to("/bin/sh")
        machine.tmux.run("new-session", "-d", "sleep", "600", ";", "set-option", "-g", "default-shell", str(shell))
        shell.unlink()
        assert "no program" in look(machine, code=1)["tmux options"]["said"]


class TestVerdicts:
    INSTALLED = Installation(Program.CLAUDE, ("claude",), "9.9.9", Path())

    def test_nobody_knows_it(self, bench: Bench) -> None:
        said = verdicts.doubt(bench.db(), self.INSTALLED)
        assert said
        assert verdicts.PROBE in said
        verdicts.check_unattended(bench.db(), self.INSTALLED)

    def test_it_has_failed_and_then_passed(self, bench: Bench) -> None:
        db = bench.db()
        verdicts.keep(db, "9.9.9", [("hooks", "no hook ran")], now=1)
        assert "hooks" in (verdicts.doubt(db, self.INSTALLED) or "")
        with pytest.raises(Unavailable, match="hooks"):
            verdicts.check_unattended(db, self.INSTALLED)
        verdicts.keep(db, "9.9.9", [], now=2)
        assert verdicts.doubt(db, self.INSTALLED) is None
        verdicts.check_unattended(db, self.INSTALLED)

    def test_a_person_has_it_used_all_the_same_until_its_next_probe(self, bench: Bench) -> None:
        db = bench.db()
        verdicts.keep(db, "9.9.9", [("hooks", "no hook ran")], now=1)
        verdicts.force(db, "9.9.9", now=2)
        verdicts.check_unattended(db, self.INSTALLED)
        assert "hooks" in (verdicts.doubt(db, self.INSTALLED) or "")
        verdicts.keep(db, "9.9.9", [("hooks", "no hook ran")], now=3)
        with pytest.raises(Unavailable, match="hooks"):
            verdicts.check_unattended(db, self.INSTALLED)

    @pytest.mark.parametrize("failed", [None, []])
    def test_nothing_is_forced_that_has_not_failed(self, bench: Bench, failed: list[tuple[str, str]] | None) -> None:
        db = bench.db()
        if failed is not None:
            verdicts.keep(db, "9.9.9", failed, now=1)
        with pytest.raises(NotFound):
            verdicts.force(db, "9.9.9", now=2)

    def test_a_rehearsal_needs_no_probe(self, bench: Bench) -> None:
        assert verdicts.doubt(bench.db(), Installation(Program.REHEARSAL, (), "rehearsal", Path())) is None

    def test_setup_installs_the_version_that_is_known(self) -> None:
        pinned = f"readonly PINNED_CLAUDE={installed.TESTED_VERSIONS[0]} "
        assert pinned in (ROOT / "setup.sh").read_text(encoding="utf-8")


def replace(program: Path, line: str) -> None:
    program.unlink()
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
