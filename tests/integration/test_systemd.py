"""The service: its units as systemd reads them, the scripts that install it, and what the daemon tells systemd.

systemctl and its like are stand-ins that record their words: no service manager is touched.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lib import daemon, host, service
from tests.conftest import ROOT, Bench, wait_for

BASH = shutil.which("bash") or "/bin/bash"
SYSTEM, OWN = "tmux-orchestrator-scheduler@alice.service", "tmux-orchestrator-scheduler.service"
INSTALL, UNINSTALL = "install-systemd-service.sh", "uninstall-systemd-service.sh"
#: The words for the service of the system, and for one's own.
KINDS = {"system": ("alice", SYSTEM), "own": ("--user", OWN)}
BOTH_KINDS = pytest.mark.parametrize("kind", list(KINDS))

#: What the scripts may take for granted. What runs as somebody else is looked for in the usual places.
BASICS = (
    *("bash", "sh", "env", "cat", "sed", "awk", "tail", "dirname", "readlink", "mkdir", "mv", "rm", "chmod", "test"),
    *("setsid", "timeout", "touch", "ln"),
)

#: Does what systemctl would do to a unit, and records what changes something; `$BROKEN` is the verb that fails.
SYSTEMCTL = """
all=$*
words=()
for word in "$@"; do
  case $word in --user | --quiet | --root=*) ;; *) words+=("$word") ;; esac
done
set -- "${words[@]}"
case $1 in
  is-system-running) echo "${SYSTEMD-running}" ;;
  is-enabled) if [ -e "$BOX/enabled-$2" ]; then echo enabled; else echo disabled; exit 1; fi ;;
  is-active) [ -e "$BOX/active-$2" ] ;;
  show) if [ -e "$BOX/unread" ]; then echo yes; else echo no; fi ;;
  reset-failed) ;;
  *)
    echo "systemctl $all" >>"$BOX/deeds"
    if [ "$1" = "${BROKEN:-}" ]; then echo "no $1 today" >&2; exit 1; fi
    case $1 in
      daemon-reload) rm -f "$BOX/unread" ;;
      enable) touch "$BOX/enabled-$2" ;;
      disable) rm -f "$BOX/enabled-$2" ;;
      start | restart) touch "$BOX/active-$2" ;;
      stop) rm -f "$BOX/active-$2" ;;
      *) exit 64 ;;
    esac ;;
esac
"""

SETUP = f"""#!{BASH}
box=$(cat "${{0%/*}}/box")
echo "setup.sh $* UV_INDEX=${{UV_INDEX:-}} PATH=$PATH" >>"$box/setups"
service=${{XDG_DATA_HOME:-$HOME/.local/share}}/tmux-orchestrator/service
case $1 in
  --verify) [ ! -e "$box/not-set-up" ] ;;
  --service)
    if [ -e "$box/no-environment" ]; then echo "no network" >&2; exit 1; fi
    mkdir -p "$service/bin" && ln -sf {sys.executable} "$service/bin/python" && touch "$service/made-from" ;;
  *) exit 64 ;;
esac
"""


@dataclass
class Machine:
    """A person with a home and a checkout, and a PATH with stand-ins for what belongs to the real machine."""

    folder: Path
    checkout: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place in (self.home, self.bin, self.box, self.units, self.checkout / "lib"):
            place.mkdir(parents=True)
        for name in BASICS:
            real = shutil.which(name)
            assert real, name
            (self.bin / name).symlink_to(real)
        shutil.copytree(ROOT / "systemd", self.checkout / "systemd")
        (self.checkout / "scheduler.py").touch()
        (self.checkout / "lib" / "daemon.py").touch()
        (self.checkout / "box").write_text(str(self.box))
        self._program(self.checkout / "setup.sh", SETUP)
        self.put("systemctl", SYSTEMCTL)
        self.put("loginctl", 'cat "$BOX/linger" 2>/dev/null || echo no')
        self.put("id", 'case $1 in -un) echo alice ;; *) echo "${WHO:-0}" ;; esac')
        self.put(
            "getent", f'[ "$2" = alice ] && [ ! -e "$BOX/nobody" ] && echo "alice:x:1234:1234::{self.home}:{BASH}"'
        )
        self.put("runuser", 'if [ "$1 $2 $3" != "-u alice --" ]; then exit 64; fi; shift 3; exec "$@"')
        self.profile('echo "a profile that talks"', f'export PATH="/usr/bin:{self.home}/tools:/bin"')

    @property
    def home(self) -> Path:
        return self.folder / "home of alice"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def box(self) -> Path:
        return self.folder / "box"

    @property
    def units(self) -> Path:
        return self.folder / "units"

    @property
    def service(self) -> Path:
        """The environment that the service runs from."""
        return self.home / ".local/share/tmux-orchestrator/service"

    def _program(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)  # it may be a link to the real one
        path.write_text(text)
        path.chmod(0o755)

    def put(self, name: str, body: str) -> None:
        self._program(self.bin / name, f"#!{BASH}\n{body}\n")

    def profile(self, *lines: str) -> None:
        (self.home / ".profile").write_text("\n".join(lines) + "\n")

    def run(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        where = ["--unit-dir", str(self.units)] if "--user" not in words and "--root" not in words else []
        environment = {"PATH": str(self.bin), "HOME": str(self.home), "BOX": str(self.box), "LANG": "C.UTF-8"}
        if "--user" in words:
            environment["WHO"] = "1234"
        return subprocess.run(
            [BASH, str(self.checkout / "systemd" / script), *words, *where],
            cwd=self.folder,
            env=environment | self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, script: str, *words: str, **variables: str) -> str:
        done = self.run(script, *words, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def deeds(self) -> list[str]:
        """What systemctl was told to change since this was asked last."""
        return self._taken("deeds")

    def setups(self) -> list[str]:
        return self._taken("setups")

    def _taken(self, name: str) -> list[str]:
        file = self.box / name
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def unit(self, name: str) -> Path:
        return self.home / ".config/systemd/user" / name if name == OWN else self.units / name

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the home, of the units and of what systemctl has kept."""
        tops = (self.home, self.units, self.box)
        files = [path for top in tops for path in top.rglob("*") if path.is_file() and path.name != "setups"]
        return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, tmp_path / "check out")


# ── units, as systemd reads them ──


def settings(unit: Path) -> list[tuple[str, str]]:
    """The lines of a unit without comments and sections."""
    lines = [line for line in unit.read_text().splitlines() if re.match(r"\w+=", line)]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def setting(unit: Path, name: str) -> list[str]:
    return [value for found, value in settings(unit) if found == name]


def words_of(value: str) -> list[str]:
    """The words of a quoted value (systemd.syntax(7)), with its specifiers."""
    assert "%" not in value.replace("%%", ""), "a specifier"
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|(\S+)', value)
    return [re.sub(r"\\(.)", r"\1", one or two or three).replace("%%", "%") for one, two, three in found]


def command_of(unit: Path, name: str) -> list[str]:
    """A command line of a unit, as it is run."""
    (value,) = setting(unit, name)
    assert "$" not in value.replace("$$", ""), "a variable"
    return [word.replace("$$", "$") for word in words_of(value)]


def environment_of(unit: Path) -> dict[str, str]:
    lines = [word for value in setting(unit, "Environment") for word in words_of(value)]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def verify(unit: Path, *words: str) -> None:
    """Have systemd itself check a unit; what it says of others is not ours."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        [program, *words, "verify", str(unit)],
        env={"PATH": os.environ["PATH"], "HOME": str(unit.parent), "XDG_RUNTIME_DIR": str(unit.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    of_ours = [line for line in done.stderr.splitlines() if "tmux-orchestrator" in line]
    assert of_ours == []


class TestUnits:
    @BOTH_KINDS
    def test_systemd_finds_nothing_wrong(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        machine.ok(INSTALL, word)
        verify(machine.unit(name), *(["--user"] if kind == "own" else []))

    @BOTH_KINDS
    def test_a_mistake_would_be_found(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        machine.ok(INSTALL, word)
        unit = machine.unit(name)
        unit.write_text(unit.read_text().replace("KillMode=process", "KillMode=proces"))
        with pytest.raises(AssertionError, match="Failed to parse kill mode"):
            verify(unit, *(["--user"] if kind == "own" else []))

    @BOTH_KINDS
    @pytest.mark.parametrize("name", ["a b", "100%h", "$HOME", 'quo"te', "it's", "back\\slash", "#{x}", "ü&|;<>"])
    def test_a_path_is_read_back_as_it_is(self, tmp_path: Path, kind: str, name: str) -> None:
        machine = Machine(tmp_path, tmp_path / name)
        machine.profile(f"export PATH='/usr/bin:{tmp_path}/home of alice/%d \"x\" $y:/bin'")
        word, unit_name = KINDS[kind]
        machine.ok(INSTALL, word)
        unit = machine.unit(unit_name)
        verify(unit, *(["--user"] if kind == "own" else []))
        python, scheduler = str(machine.service / "bin/python"), str(tmp_path / name / "scheduler.py")
        assert command_of(unit, "ExecStart") == [
            *("/usr/bin/env", python, "-X", "faulthandler", scheduler, "--queue-daemon")
        ]
        assert command_of(unit, "ExecStartPre")[-2:] == [python, scheduler]
        assert environment_of(unit)["PATH"].split(":") == [
            *(f"{machine.home}/.local/bin", "/usr/bin", f'{machine.home}/%d "x" $y', "/bin")
        ]

    def test_a_unit_of_ones_own_is_the_same_but_for_what_needs_root(self, machine: Machine) -> None:
        for word, _ in KINDS.values():
            machine.ok(INSTALL, word)
            machine.ok(UNINSTALL, word)
        system, own = (
            {name for name, _ in settings(ROOT / "systemd" / unit)}
            for unit in ("tmux-orchestrator-scheduler@.service", OWN)
        )
        # The last three are the defaults, told for their reasons.
        of_root = {"Wants", "After", "User", "CapabilityBoundingSet", "PrivateTmp", "ProtectHome", "NoNewPrivileges"}
        assert system - own == of_root | {"Environment"}
        assert own - system == set()
        shared = [one for one in settings(ROOT / "systemd" / OWN) if one[0] not in ("Description", "WantedBy")]
        assert set(shared) <= set(settings(ROOT / "systemd" / "tmux-orchestrator-scheduler@.service"))

    @BOTH_KINDS
    def test_agents_go_on_and_keep_what_the_person_may_do(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        machine.ok(INSTALL, word)
        unit = dict(settings(machine.unit(name)))
        assert (unit["KillMode"], unit["OOMPolicy"], unit["TasksMax"]) == ("process", "continue", "infinity")
        # Each of these makes a file system of its own, or takes sudo away (systemd.exec(5), NoNewPrivileges=).
        inherited = re.compile(
            r"^(Protect|Private|Restrict|SystemCall|MemoryDeny|LockPers|ReadOnly|Inaccess|NoNewPriv)"
        )
        assert {value for key, value in unit.items() if inherited.match(key)} <= {"no"}
        assert not any(key.startswith(("Memory", "CPU", "IO", "Limit", "UMask")) for key in unit)

    def test_the_stricter_settings_of_the_manual_are_valid(self, machine: Machine) -> None:
        (block,) = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "systemd.md").read_text(), re.DOTALL)
        assert "NoNewPrivileges=yes" in block
        machine.ok(INSTALL, "alice")
        unit = machine.unit(SYSTEM)
        unit.write_text(unit.read_text().replace("\n[Install]", f"\n{block}\n[Install]"))
        verify(unit)


# ── install ──


class TestInstalling:
    @BOTH_KINDS
    def test_it_writes_enables_and_starts(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        said = machine.ok(INSTALL, word)
        systemctl = "systemctl --user" if kind == "own" else "systemctl"
        assert machine.deeds() == [
            f"{systemctl} daemon-reload",
            f"{systemctl} --quiet enable {name}",
            f"{systemctl} start {name}",
        ]
        assert f"Wrote {machine.unit(name)}." in said and f"{systemctl} status {name}" in said
        assert oct(machine.unit(name).stat().st_mode & 0o777) == "0o644"
        assert list(machine.unit(name).parent.iterdir()) == [machine.unit(name)]
        assert machine.service.is_dir()
        assert dict(settings(machine.unit(name))).get("User") == (None if kind == "own" else "%i")

    @BOTH_KINDS
    def test_a_second_run_changes_nothing_and_says_so(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        machine.ok(INSTALL, word)
        machine.deeds()
        before = machine.snapshot()
        assert f"Nothing to do: {name} is installed and runs." in machine.ok(INSTALL, word)
        assert machine.snapshot() == before

    @BOTH_KINDS
    def test_a_dry_run_says_exactly_what_the_real_one_does(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        before = machine.snapshot()
        for script in (INSTALL, UNINSTALL):
            said = machine.ok(script, word, "--dry-run").splitlines()
            assert machine.snapshot() == before
            told = [line.removeprefix("would run: ") for line in said if line.startswith("would run: systemctl ")]
            assert told
            machine.ok(script, word)
            assert machine.deeds() == told
            shown = "\n".join(line[4:] for line in said if line.startswith("    "))
            if script == INSTALL:
                assert machine.unit(name).read_text().rstrip("\n") == shown
                assert f"would write {machine.unit(name)}:" in said
                setup = f"'{machine.checkout}/setup.sh' --service"
                assert f"would run as alice: {setup}" in said
            else:
                assert f"would run: rm -f {shlex.quote(str(machine.unit(name)))}" in said
                assert f"would run as alice: rm -rf '{machine.service}'" in said
                assert not machine.unit(name).exists() and not machine.service.exists()
            assert "Nothing was changed." in said
            before = machine.snapshot()

    def test_a_dry_run_needs_neither_root_nor_systemd(self, machine: Machine) -> None:
        said = machine.ok(INSTALL, "alice", "--dry-run", WHO="1234", SYSTEMD="offline")
        assert f"would run: systemctl start {SYSTEM}" in said
        assert machine.deeds() == []

    def test_what_runs_for_somebody_else_runs_as_that_one(self, machine: Machine) -> None:
        machine.put("runuser", 'echo "$*" >>"$BOX/as-alice"; shift 3; exec "$@"')
        machine.profile("export UV_INDEX=https://index.example PATH=/usr/bin:/bin:$HOME/tools")
        machine.ok(INSTALL, "alice", SECRET="of root")
        verified, made = machine.setups()
        assert verified.startswith("setup.sh --verify ") and made.startswith("setup.sh --service ")
        # By the login's own environment: a proxy or an index may be set there.
        assert (
            f"UV_INDEX=https://index.example PATH={machine.home}/.local/bin:/usr/bin:/bin:{machine.home}/tools" in made
        )
        as_alice = (machine.box / "as-alice").read_text().splitlines()
        assert any(line.endswith("setup.sh --service") for line in as_alice)
        assert all(line.startswith("-u alice -- env -i HOME=") for line in as_alice)

    def test_who_installs_their_own_keeps_their_environment(self, machine: Machine) -> None:
        machine.ok(INSTALL, "--user", UV_INDEX="https://mine.example")
        assert all("UV_INDEX=https://mine.example " in line for line in machine.setups())

    @BOTH_KINDS
    def test_the_login_says_where_programs_and_things_are_and_nothing_else_is_taken(
        self, machine: Machine, kind: str
    ) -> None:
        machine.profile(
            "echo PATH=/noise",
            'export PATH="/usr/bin:/run/user/1234/fnm/bin:relative:/usr/bin::/opt/my tools:/tmp/x:$HOME/.local/bin"',
            "export TMUX_ORCHESTRATOR_HOME=/var/state XDG_STATE_HOME=/elsewhere TMUX_TMPDIR= LANG=de_DE.UTF-8",
            "export ANTHROPIC_API_KEY=sk-secret HTTPS_PROXY=http://proxy",
            "export MANY='one\ntwo'",
        )
        word, name = KINDS[kind]
        machine.ok(INSTALL, word, TMUX_ORCHESTRATOR_SOCKET="of-the-caller")
        found = environment_of(machine.unit(name))
        assert found.pop("XDG_RUNTIME_DIR", "/run/user/1234") == "/run/user/1234"
        assert found == {
            "PATH": f"{machine.home}/.local/bin:/usr/bin:/opt/my tools",
            "LANG": "de_DE.UTF-8",
            "TMUX_ORCHESTRATOR_HOME": "/var/state",
            "XDG_STATE_HOME": "/elsewhere",
        }
        assert setting(machine.unit(name), "EnvironmentFile") == [
            f"-{machine.home}/.config/tmux-orchestrator/environment"
        ]

    @pytest.mark.parametrize("shell", ["/bin/false", "/no/such/shell", ""])
    def test_a_login_that_says_nothing_gets_the_usual_path(self, machine: Machine, shell: str) -> None:
        machine.put("getent", f'echo "alice:x:1234:1234::{machine.home}:{shell}"')
        machine.ok(INSTALL, "alice")
        found = environment_of(machine.unit(SYSTEM))
        assert (
            found["PATH"] == f"{machine.home}/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        )
        assert found["LANG"] == "C.UTF-8"

    def test_a_claude_that_the_service_will_not_find_is_told(self, machine: Machine) -> None:
        assert "the service does not find claude" in machine.ok(INSTALL, "alice")
        tools = machine.home / "tools"
        tools.mkdir()
        (tools / "claude").write_text("#!/bin/sh\n")
        (tools / "claude").chmod(0o755)
        assert "claude" not in machine.ok(INSTALL, "alice")

    def test_lingering_is_proposed_to_whom_lacks_it(self, machine: Machine) -> None:
        assert "loginctl enable-linger" in machine.ok(INSTALL, "--user")
        (machine.box / "linger").write_text("yes\n")
        assert "loginctl" not in machine.ok(INSTALL, "--user")
        machine.ok(UNINSTALL, "--user")
        assert "loginctl" not in machine.ok(INSTALL, "alice")

    def test_a_changed_unit_is_read_and_the_service_restarted(self, machine: Machine) -> None:
        machine.ok(INSTALL, "alice")
        machine.deeds()
        machine.profile("export PATH=/usr/bin:/bin:/opt/new")
        machine.ok(INSTALL, "alice")
        assert machine.deeds() == ["systemctl daemon-reload", f"systemctl restart {SYSTEM}"]
        assert environment_of(machine.unit(SYSTEM))["PATH"].endswith(":/opt/new")

    @pytest.mark.parametrize("broken", ["daemon-reload", "enable", "start"])
    @BOTH_KINDS
    def test_what_systemd_refuses_is_told_and_the_next_run_goes_on_there(
        self, machine: Machine, kind: str, broken: str
    ) -> None:
        word, name = KINDS[kind]
        if broken == "daemon-reload":
            (machine.box / "unread").touch()  # systemd notices a unit that it has not read
        done = machine.run(INSTALL, word, BROKEN=broken)
        assert done.returncode == 1
        assert f"no {broken} today" in done.stderr and "error: " in done.stderr
        assert broken in machine.deeds()[-1]
        machine.ok(INSTALL, word)
        assert broken in machine.deeds()[0]
        assert (machine.box / f"enabled-{name}").exists() and (machine.box / f"active-{name}").exists()
        assert "Nothing to do" in machine.ok(INSTALL, word)

    def test_a_service_that_was_stopped_or_disabled_by_hand_is_mended(self, machine: Machine) -> None:
        machine.ok(INSTALL, "alice")
        for name, deed in ((f"active-{SYSTEM}", "start"), (f"enabled-{SYSTEM}", "--quiet enable")):
            (machine.box / name).unlink()
            machine.deeds()
            machine.ok(INSTALL, "alice")
            assert machine.deeds() == [f"systemctl {deed} {SYSTEM}"]

    def test_an_environment_that_cannot_be_made_leaves_no_unit(self, machine: Machine) -> None:
        (machine.box / "no-environment").touch()
        done = machine.run(INSTALL, "alice")
        assert done.returncode == 1
        assert "no network" in done.stderr and f"as alice: '{machine.checkout}/setup.sh' --service" in done.stderr
        assert list(machine.units.iterdir()) == [] and machine.deeds() == []


def foreign(machine: Machine) -> None:
    machine.unit(SYSTEM).write_text("[Service]\nExecStart=/bin/true\n")


def masked(machine: Machine) -> None:
    machine.unit(SYSTEM).symlink_to("/dev/null")


def linked_to_nowhere(machine: Machine) -> None:
    machine.unit(SYSTEM).symlink_to("/no/such/unit")


def has_their_own(machine: Machine) -> None:
    machine.unit(OWN).parent.mkdir(parents=True)
    machine.unit(OWN).touch()


def has_one_of_the_system(machine: Machine) -> None:
    (machine.box / f"enabled-{SYSTEM}").touch()


def not_set_up(machine: Machine) -> None:
    (machine.box / "not-set-up").touch()


def unreadable(machine: Machine) -> None:
    (machine.checkout / "scheduler.py").unlink()


def homeless(machine: Machine) -> None:
    machine.put("getent", 'echo "alice:x:1234:1234::/no/such/home:/bin/sh"')


def as_ever(machine: Machine) -> None:
    pass


REFUSALS = [
    # Wrong words.
    (as_ever, (), {}, 2, "name the USER"),
    (as_ever, ("alice", "bob"), {}, 2, "one USER at a time"),
    (as_ever, ("--user", "alice"), {}, 2, "takes no USER"),
    (as_ever, ("--user",), {"WHO": "0", "SUDO_USER": "alice"}, 2, "leave sudo out"),
    (as_ever, ("--everything",), {}, 2, "unknown option"),
    (as_ever, ("al ice",), {}, 2, "no unit can be named"),
    (as_ever, ("../alice",), {}, 2, "no unit can be named"),
    (as_ever, ("alice", "--root", "/no/such/place"), {}, 2, "needs a folder that is there"),
    (as_ever, ("alice", "--root"), {}, 2, "needs a folder that is there"),
    # Nobody, or nowhere.
    (as_ever, ("bob",), {}, 3, "there is no user bob"),
    (homeless, ("alice",), {}, 3, "alice has no home"),
    # Not by this one.
    (as_ever, ("alice",), {"WHO": "1234"}, 1, "only root"),
    (as_ever, ("alice", "--dry-run"), {"WHO": "1235"}, 1, "only root"),
    # Not there yet.
    (unreadable, ("alice",), {}, 1, "alice cannot read the checkout"),
    (not_set_up, ("alice",), {}, 5, "alice has not set up the toolkit"),
    (not_set_up, ("--user",), {}, 5, "alice has not set up the toolkit"),
    (as_ever, ("alice",), {"SYSTEMD": "offline"}, 5, "systemd does not run this system"),
    (as_ever, ("--user",), {"SYSTEMD": ""}, 5, "your service manager cannot be asked"),
    # In the way.
    (foreign, ("alice",), {}, 1, "is not of our making"),
    (masked, ("alice",), {}, 1, "is not of our making"),
    (linked_to_nowhere, ("alice",), {}, 1, "is not of our making"),
    (has_their_own, ("alice",), {}, 4, "alice has a service of their own"),
    (has_one_of_the_system, ("--user",), {}, 4, "alice has a service of the system"),
]


@pytest.mark.parametrize(("situation", "words", "variables", "code", "sentence"), REFUSALS)
def test_what_cannot_be_whole_is_not_begun(
    machine: Machine, situation: object, words: tuple[str, ...], variables: dict[str, str], code: int, sentence: str
) -> None:
    assert callable(situation)
    situation(machine)
    before = machine.snapshot()
    done = machine.run(INSTALL, *words, **variables)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ") and sentence in done.stderr
    assert machine.snapshot() == before and machine.deeds() == []


# ── uninstall ──


class TestUninstalling:
    @BOTH_KINDS
    def test_what_was_written_goes_and_what_is_the_persons_stays(self, machine: Machine, kind: str) -> None:
        word, name = KINDS[kind]
        mine = [machine.home / ".config/tmux-orchestrator/environment", machine.home / ".local/state/x/orchestrator.db"]
        for path in mine:
            path.parent.mkdir(parents=True)
            path.touch()
        before = machine.snapshot()
        machine.ok(INSTALL, word)
        machine.deeds()
        said = machine.ok(UNINSTALL, word)
        systemctl = "systemctl --user" if kind == "own" else "systemctl"
        assert machine.deeds() == [
            f"{systemctl} stop {name}",
            f"{systemctl} --quiet disable {name}",
            f"{systemctl} daemon-reload",
        ]
        assert "Its agents go on" in said
        assert machine.snapshot() == before and not machine.service.exists()
        assert machine.ok(UNINSTALL, word) == f"Nothing to do: {name} is not installed.\n"
        assert machine.deeds() == []

    def test_somebody_elses_unit_stays(self, machine: Machine) -> None:
        for situation in (foreign, masked, linked_to_nowhere):
            machine.unit(SYSTEM).unlink(missing_ok=True)
            situation(machine)
            done = machine.run(UNINSTALL, "alice")
            assert done.returncode == 1
            assert "is not of our making" in done.stderr
            assert os.path.lexists(machine.unit(SYSTEM)) and machine.deeds() == []

    def test_only_root_removes_a_service_of_the_system(self, machine: Machine) -> None:
        machine.ok(INSTALL, "alice")
        machine.deeds()
        done = machine.run(UNINSTALL, "alice", WHO="1234")
        assert done.returncode == 1
        assert "only root removes" in done.stderr
        assert machine.unit(SYSTEM).exists() and machine.deeds() == []
        assert f"would run: systemctl stop {SYSTEM}" in machine.ok(UNINSTALL, "alice", "--dry-run", WHO="1234")

    def test_the_service_of_an_account_that_is_gone_can_be_removed(self, machine: Machine) -> None:
        machine.ok(INSTALL, "alice")
        (machine.box / "nobody").touch()
        machine.ok(UNINSTALL, "alice")
        assert list(machine.units.iterdir()) == []

    def test_ones_own_additions_stay_and_are_named(self, machine: Machine) -> None:
        machine.ok(INSTALL, "alice")
        additions = machine.units / f"{SYSTEM}.d"
        additions.mkdir()
        assert str(additions) in machine.ok(UNINSTALL, "alice")
        assert additions.is_dir()

    @pytest.mark.parametrize("broken", ["stop", "disable", "daemon-reload"])
    def test_what_systemd_refuses_is_told_and_the_next_run_goes_on(self, machine: Machine, broken: str) -> None:
        machine.ok(INSTALL, "alice")
        done = machine.run(UNINSTALL, "alice", BROKEN=broken)
        assert done.returncode == 1 and f"no {broken} today" in done.stderr
        assert machine.unit(SYSTEM).exists() is (broken != "daemon-reload")
        machine.ok(UNINSTALL, "alice")
        assert list(machine.units.iterdir()) == [] and not machine.service.exists()

    def test_where_systemd_does_not_run_the_unit_goes_all_the_same(self, machine: Machine) -> None:
        machine.ok(INSTALL, "alice")
        machine.deeds()
        machine.ok(UNINSTALL, "alice", SYSTEMD="offline")
        assert machine.deeds() == [f"systemctl --quiet disable {SYSTEM}"]
        assert list(machine.units.iterdir()) == []


# ── a system that does not run ──


class TestAnImage:
    @pytest.fixture
    def image(self, tmp_path: Path) -> Machine:
        """A system below a folder: its passwd, a home with the environment of the service, and the checkout."""
        root = tmp_path / "image"
        machine = Machine(tmp_path, root / "opt" / "check out")
        (root / "etc/systemd/system").mkdir(parents=True)
        (root / "etc/passwd").write_text("al.ce:x:1:1::/:/bin/sh\nalice:x:1234:1234::/people/a:/bin/sh\n")
        environment = root / "people/a/.local/share/tmux-orchestrator/service/bin"
        environment.mkdir(parents=True)
        (environment / "python").symlink_to("/usr/bin/python3")
        return machine

    def test_the_unit_is_written_and_enabled_below_it(self, image: Machine) -> None:
        if systemctl := shutil.which("systemctl"):
            (image.bin / "systemctl").unlink()
            (image.bin / "systemctl").symlink_to(systemctl)  # the real one, which needs no running systemd for this
        root = image.folder / "image"
        assert "starts with it" in image.ok(INSTALL, "alice", "--root", str(root), WHO="1000")
        unit = root / "etc/systemd/system" / SYSTEM
        assert command_of(unit, "ExecStart")[1:] == [
            "/people/a/.local/share/tmux-orchestrator/service/bin/python",
            *("-X", "faulthandler", "/opt/check out/scheduler.py", "--queue-daemon"),
        ]
        assert setting(unit, "EnvironmentFile") == ["-/people/a/.config/tmux-orchestrator/environment"]
        assert image.setups() == []
        wanted = root / "etc/systemd/system/multi-user.target.wants" / SYSTEM
        assert wanted.is_symlink() == bool(systemctl)
        assert "Nothing to do" in image.ok(INSTALL, "alice", "--root", str(root))
        image.ok(UNINSTALL, "alice", "--root", str(root))
        assert not unit.exists() and not wanted.is_symlink()

    def test_a_checkout_outside_of_it_is_refused(self, image: Machine) -> None:
        shutil.move(image.checkout, image.folder / "outside")
        image.checkout = image.folder / "outside"
        done = image.run(INSTALL, "alice", "--root", str(image.folder / "image"))
        assert done.returncode == 1 and "is not below" in done.stderr

    def test_one_without_the_environment_is_refused(self, image: Machine) -> None:
        root = image.folder / "image"
        shutil.rmtree(root / "people/a/.local")
        done = image.run(INSTALL, "alice", "--root", str(root))
        assert done.returncode == 5 and "setup.sh --service" in done.stderr
        assert list((root / "etc/systemd/system").iterdir()) == []


# ── what the daemon tells systemd ──


@dataclass
class Manager:
    """Starts the service as systemd would, by the lines of the installed unit, and hears what it is told."""

    bench: Bench
    unit: Path
    channel: socket.socket
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command_of(self.unit, "ExecStart"),
            env=self.environment,
            cwd=self.bench.folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def make_room(self) -> subprocess.CompletedProcess[str]:
        """What the unit does before the start."""
        command = command_of(self.unit, "ExecStartPre")
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.bench.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def hears(self, seconds: float = 30.0) -> tuple[str, int]:
        """The next message, and the pid of who has sent it."""
        self.channel.settimeout(seconds)
        message, control, _, _ = self.channel.recvmsg(1000, socket.CMSG_SPACE(12))
        (pid, _, _) = struct.unpack("iII", control[0][2])
        return message.decode(), pid

    def hears_nothing(self) -> bool:
        try:
            self.hears(0.3)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def manager(machine: Machine, bench: Bench, tmp_path: Path) -> Iterator[Manager]:
    for name in ("scheduler.py", "lib"):  # the checkout of the unit runs the real daemon
        path = machine.checkout / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(ROOT / name)
    machine.ok(INSTALL, "--user")
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        channel.bind(address)
        environment = bench.environment | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000000"}
        made = Manager(bench, machine.unit(OWN), channel, environment)
        yield made
        for process in made.started:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


class TestTelling:
    def test_it_is_ready_once_alive_each_beat_and_says_when_it_ends(self, manager: Manager) -> None:
        process = manager.start()
        # All from the process that systemd has started: NotifyAccess=main, the default, is enough.
        assert manager.hears() == ("READY=1", process.pid)
        running = service.running(manager.bench.home)
        assert running and running.pid == process.pid
        assert service.drains_queue(manager.bench.home)
        assert manager.hears() == ("WATCHDOG=1", process.pid)
        assert manager.hears_nothing()
        host.wake(manager.bench.home)
        assert manager.hears() == ("WATCHDOG=1", process.pid)
        process.send_signal(signal.SIGHUP)
        assert manager.hears() == ("WATCHDOG=1", process.pid)
        assert "was read again" in (manager.bench.home / "logs" / "scheduler.log").read_text()
        process.terminate()
        last = [manager.hears()[0]]
        while last[-1] == "WATCHDOG=1":  # a beat on the way out
            last.append(manager.hears()[0])
        assert last[-1] == "STOPPING=1"
        assert process.wait(30) == 0
        assert manager.hears_nothing()

    def test_a_scheduler_in_its_place_makes_room(self, manager: Manager) -> None:
        rival = subprocess.Popen(
            [sys.executable, str(ROOT / "scheduler.py"), "--daemon"],
            env=manager.bench.environment,
            stderr=subprocess.DEVNULL,
        )
        manager.started.append(rival)  # type: ignore[arg-type]
        wait_for(lambda: host.is_alive(service.running(manager.bench.home)), "the other scheduler")
        done = manager.make_room()
        assert (done.returncode, done.stdout) == (0, f"stopped (it was pid {rival.pid})\n")
        assert rival.wait(30) == 0
        process = manager.start()
        assert manager.hears() == ("READY=1", process.pid)

    def test_where_none_runs_there_is_nothing_to_say(self, manager: Manager) -> None:
        done = manager.make_room()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_one_that_does_not_make_room_is_left_and_the_start_has_failed(self, manager: Manager) -> None:
        with host.lock(manager.bench.home / "scheduler.lock"):
            assert manager.make_room().returncode == 0
            process = manager.start()
            assert process.wait(60) == 4
            assert manager.hears_nothing()

    def test_one_that_hangs_tells_where_before_it_is_ended(self, manager: Manager) -> None:
        process = manager.start()
        assert manager.hears() == ("READY=1", process.pid)
        manager.hears()
        process.send_signal(signal.SIGABRT)  # what the watchdog sends
        assert process.wait(30) == -signal.SIGABRT
        said = process.communicate()[1]
        assert "Fatal Python error: Aborted" in said and "lib/daemon.py" in said

    def test_the_units_own_times_fit_the_beat(self, manager: Manager) -> None:
        unit = dict(settings(manager.unit))
        assert unit["Type"] == "notify" and unit["WatchdogSec"] == "5min"
        assert 4 * daemon.IDLE_SECONDS <= 5 * 60
        assert unit["TimeoutStopSec"] == "90" and unit["Restart"] == "on-failure"
