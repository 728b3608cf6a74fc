"""setup.sh on three kinds of machine, whose package managers and uv are stand-ins that record their words."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash") or "/bin/bash"

#: What setup.sh may take for granted on every system.
BASICS = (
    *("bash", "sh", "env", "cat", "head", "tail", "grep", "sed", "cksum", "dirname"),
    *("cp", "mv", "rm", "ln", "mkdir", "mktemp", "chmod", "touch"),
)

#: Says what it was asked, so that a test can compare it word for word.
RECORD = f"#!{BASH}\n" + 'echo "${0##*/} $*" >>"$CALLS"\n'

#: "Installs" a package: its stand-ins move from the store onto PATH.
TAKE = (
    'for word in "$@"; do for file in "$STORE/$word"*; do if [ -e "$file" ]; then cp "$file" "$BIN"; fi; done; done\n'
    # The one package that is named otherwise than its program.
    'if [ -e "$BIN/iproute2" ]; then mv "$BIN/iproute2" "$BIN/ip"; fi\n'
)

UV = """
environment=$HOME/.cache/uv/environments-v2
last=${!#}
# As the real one: looking for a Python makes the cache.
case "$*" in *--no-cache*) ;; 'python find '*) mkdir -p "$HOME/.cache/uv" ;; esac
case "$*" in
  --version) echo "uv ${UV_VERSION:-0.13.9}" ;;
  'cache dir') echo "$HOME/.cache/uv" ;;
  'sync --quiet --script '*)
    if [ "$last" = "${BROKEN_DOOR:-}" ]; then echo "no matching version" >&2; exit 2; fi
    mkdir -p "$environment/$last/bin"; cp "$BIN/python3" "$environment/$last/bin/python" ;;
  'python find '*--script*)
    python=$environment/$last/bin/python
    if [ -e "$python" ]; then echo "$python"; else echo "$BIN/python3"; fi ;;
  'python find '*) echo "$BIN/python3" ;;
  'venv '*) mkdir -p "$last/bin" "$last/lib/python3.11/site-packages"; cp "$BIN/python3" "$last/bin/python" ;;
  'pip install '*) if [ -n "${BROKEN_PIP:-}" ]; then echo "no such hash" >&2; exit 2; fi ;;
  *) exit 64 ;;
esac
"""

NPM = """
case $(uname -s) in Darwin) platform=darwin-x64 ;; *) platform=linux-x64 ;; esac
package=.dev/claude/node_modules/@anthropic-ai/claude-code-$platform
mkdir -p "$package"
echo '{ "version": "2.1.330" }' >"$package/package.json"
touch "$package/claude"
chmod +x "$package/claude"
"""

DOOR = """#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator{extra}"]
# ///
"""


@dataclass
class Machine:
    """A home, a checkout and a PATH on which nothing of the real machine's tools is but the basics."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place in (self.home, self.bin, self.store, self.checkout):
            place.mkdir()
        for name in BASICS:
            self.link(name)
        for name in ("setup.sh", "requirements.lock", "pyproject.toml", "config.example.yaml"):
            shutil.copy(ROOT / name, self.checkout)
        # What the real machine has there is not on this one.
        script = self.checkout / "setup.sh"
        script.write_text(script.read_text().replace("/usr/sbin/", f"{self.folder}/sbin/"))
        for name, extra in (("claude_control", ""), ("scheduler", ""), ("test_integration", "[dev]")):
            door = self.checkout / f"{name}.py"
            door.write_text(DOOR.format(extra=extra))
            door.chmod(0o755)
        self.put("id", "echo 0")
        self.put("uname", 'case $1 in -s) echo "${SYSTEM:-Linux}" ;; *) echo x86_64 ;; esac')
        self.put("python3", 'if [ "$1" = --version ]; then echo "Python 3.11.7"; else exit 1; fi')
        self.put("uv", UV)
        self.put("git", "echo git version 2.39.5")
        self.put("tmux", "echo tmux 3.3a")
        self.put("npm", NPM, self.store)
        for name in ("chromium", "shellcheck", "ShellCheck", "nodejs", "systemd", "systemd-analyze", "nats-server"):
            self.put(name, "", self.store)
        self.put("iproute2", "", self.store)

    @property
    def home(self) -> Path:
        return self.folder / "home of a user"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    def link(self, name: str) -> None:
        real = shutil.which(name)
        assert real, name
        (self.bin / name).symlink_to(real)

    def put(self, name: str, body: str, folder: Path | None = None) -> None:
        """Make a program that records its words and then does `body`."""
        program = (folder or self.bin) / name
        program.unlink(missing_ok=True)  # it may be a link to the real one
        program.write_text(RECORD + body + "\n")
        program.chmod(0o755)

    def lose(self, *names: str) -> None:
        """Take programs away; the package manager still has them."""
        for name in names:
            (self.bin / name).rename(self.store / name)

    def is_of_kind(self, kind: str) -> None:
        """Give the machine its package manager."""
        self.put({"debian": "apt-get", "fedora": "dnf", "macos": "brew"}[kind], TAKE)
        if kind == "debian":
            # More text than a pipe holds, so that a reader who leaves early is noticed.
            self.put(
                "apt-cache",
                'if [ -e "$STORE/$2" ]; then echo "  Candidate: 1.0"; fi; printf "%100000s\\n" versions',
            )
        if kind == "macos":
            self.variables["SYSTEM"] = "Darwin"

    def has_no_root(self) -> None:
        self.put("id", "echo 1000")

    def setup(self, *words: str, answers: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.folder),
            "CALLS": str(self.folder / "calls"),
            "STORE": str(self.store),
            "BIN": str(self.bin),
            **self.variables,
            **variables,
        }
        command = [BASH, "./setup.sh", *words]
        return subprocess.run(
            command,
            cwd=self.checkout,
            env=environment,
            input=answers,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self, *names: str) -> list[str]:
        """What the named programs were asked, in order."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.split(" ")[0] in names]

    def forget_calls(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Every file and folder of the home and the checkout: mode and content."""
        found = {}
        for top in (self.home, self.checkout):
            for path in [top, *top.rglob("*")]:
                content = b"" if path.is_dir() else path.read_bytes()
                found[str(path)] = (path.stat().st_mode, content)
        return found

    def configured_projects(self) -> str:
        """What a shell reads from config.local.sh."""
        script = '. ./config.local.sh && printf "%s" "$PROJECTS_DIR"'
        read = [BASH, "-c", script]
        return subprocess.run(read, cwd=self.checkout, env={}, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A Debian machine with everything on it, and a user who is root."""
    machine = Machine(tmp_path)
    machine.is_of_kind("debian")
    return machine


@pytest.fixture
def bare_machine(tmp_path: Path) -> Machine:
    """A machine with everything on it, whose package manager the test chooses."""
    return Machine(tmp_path)


# ── packages ──


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("debian", ["apt-get update", "apt-get install --yes --no-install-recommends tmux"]),
        ("fedora", ["dnf install --assumeyes tmux"]),
        ("macos", ["brew install tmux"]),
    ],
)
def test_a_missing_tmux_comes_from_the_systems_package_manager(
    bare_machine: Machine, kind: str, expected: list[str]
) -> None:
    bare_machine.is_of_kind(kind)
    bare_machine.lose("tmux")
    done = bare_machine.setup("--non-interactive")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Installed: tmux." in done.stdout
    assert bare_machine.calls("apt-get", "dnf", "brew") == expected


def test_several_missing_tools_are_one_command(machine: Machine) -> None:
    machine.lose("tmux", "git")
    assert machine.setup("--non-interactive").returncode == 0
    assert machine.calls("apt-get")[1:] == ["apt-get install --yes --no-install-recommends tmux git"]


def test_a_tmux_that_is_too_old_is_replaced(machine: Machine) -> None:
    machine.lose("tmux")
    machine.put("tmux", "echo tmux 2.9a")
    assert machine.setup("--non-interactive").returncode == 0
    assert "apt-get install --yes --no-install-recommends tmux" in machine.calls("apt-get")


def test_a_package_that_is_too_old_as_well_ends_the_setup(machine: Machine) -> None:
    machine.put("tmux", "echo tmux 2.9a")
    done = machine.setup("--non-interactive")
    assert done.returncode == 1
    assert "tmux 3.0 is needed; this system's package gives: 2.9." in done.stderr
    assert not (machine.checkout / "config.local.sh").exists()


def test_a_user_who_is_not_root_gets_it_through_sudo(machine: Machine) -> None:
    machine.lose("tmux")
    machine.has_no_root()
    machine.put("sudo", 'if [ "$1" = -n ]; then shift; fi; "$@"')
    assert machine.setup("--non-interactive").returncode == 0
    assert machine.calls("sudo") == [
        "sudo -n apt-get update",
        "sudo -n apt-get install --yes --no-install-recommends tmux",
    ]


def test_without_root_and_sudo_the_command_is_printed_and_nothing_written(machine: Machine) -> None:
    machine.lose("tmux")
    machine.has_no_root()
    before = machine.snapshot()
    done = machine.setup("--non-interactive")
    assert done.returncode == 1
    assert "su -c 'apt-get update && apt-get install --yes --no-install-recommends tmux'" in done.stderr
    assert machine.snapshot() == before
    assert machine.calls("apt-get") == []


def test_a_system_without_a_known_package_manager_is_told_what_to_install(bare_machine: Machine) -> None:
    bare_machine.lose("tmux", "git")
    done = bare_machine.setup("--non-interactive")
    assert done.returncode == 1
    assert "install tmux git with this system's package manager" in done.stderr


def test_a_mac_without_homebrew_is_told_to_get_it(bare_machine: Machine) -> None:
    bare_machine.variables["SYSTEM"] = "Darwin"
    bare_machine.lose("tmux")
    done = bare_machine.setup("--non-interactive")
    assert done.returncode == 1
    assert "tmux: missing" in done.stderr and "install Homebrew" in done.stderr


def test_a_failed_installation_shows_its_output_and_the_command(machine: Machine) -> None:
    machine.lose("tmux")
    machine.put("apt-get", 'if [ "$1" = install ]; then echo "E: Unable to locate package tmux"; exit 100; fi')
    before = machine.snapshot()
    done = machine.setup("--non-interactive")
    assert done.returncode == 1
    assert "E: Unable to locate package tmux" in done.stderr
    assert "next: apt-get install --yes --no-install-recommends tmux" in done.stderr
    assert machine.snapshot() == before


def test_it_asks_before_each_command_and_a_no_installs_nothing(machine: Machine) -> None:
    machine.lose("tmux")
    done = machine.setup(answers="n\nn\n")
    assert done.returncode == 1
    assert "Run: apt-get install --yes --no-install-recommends tmux  [Y/n]" in done.stderr
    assert machine.calls("apt-get") == []


def test_a_yes_installs(machine: Machine) -> None:
    machine.lose("tmux")
    done = machine.setup(answers="y\ny\n")
    assert done.returncode == 0
    assert machine.calls("apt-get")[1:] == ["apt-get install --yes --no-install-recommends tmux"]


# ── uv ──


def test_uv_comes_from_the_package_manager_when_that_has_it(machine: Machine) -> None:
    machine.lose("uv")
    assert machine.setup("--non-interactive").returncode == 0
    assert machine.calls("apt-get")[1:] == ["apt-get install --yes --no-install-recommends uv"]


def test_pip_brings_uv_when_no_package_does(machine: Machine) -> None:
    machine.lose("uv")
    machine.put(
        "python3",
        f'if [ "$1" = --version ]; then echo "Python 3.11.7"; else mkdir -p "$HOME/.local/bin"; '
        f'cp {machine.folder}/uv "$HOME/.local/bin/uv"; fi',
    )
    (machine.store / "uv").rename(machine.folder / "uv")
    done = machine.setup("--non-interactive")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python3 -m pip install --upgrade uv --user" in machine.calls("python3")
    assert 'export PATH="$HOME/.local/bin:$PATH"' in done.stdout


def test_a_pip_that_refuses_is_replaced_by_an_environment_of_its_own(machine: Machine) -> None:
    machine.lose("uv")
    (machine.store / "uv").rename(machine.folder / "uv")
    # The Python of the new environment: its pip "installs" beside itself.
    machine.put("python-of-venv", f'cp {machine.folder}/uv "${{0%/*}}/uv"', machine.folder)
    machine.put(
        "python3",
        f'case "$1 $2" in "--version ") echo "Python 3.11.7" ;; "-m venv") mkdir -p "$3/bin"; '
        f'cp {machine.folder}/python-of-venv "$3/bin/python" ;; *) echo externally-managed; exit 1 ;; esac',
    )
    done = machine.setup("--non-interactive")
    assert (done.returncode, done.stderr) == (0, "")
    link = machine.home / ".local/bin/uv"
    assert link.resolve() == (machine.home / ".local/share/tmux-orchestrator/uv/bin/uv").resolve()


def test_uv_needs_no_root(machine: Machine) -> None:
    machine.lose("uv")
    machine.has_no_root()
    machine.put("pipx", f'mkdir -p "$HOME/.local/bin"; cp {machine.store}/uv "$HOME/.local/bin/uv"')
    done = machine.setup("--non-interactive")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.calls("pipx", "apt-get") == ["pipx install --force uv"]


def test_an_old_uv_is_not_good_enough(machine: Machine) -> None:
    done = machine.setup("--non-interactive", UV_VERSION="0.6.0")
    assert done.returncode == 1
    assert "uv 0.6.10 could not be installed" in done.stderr
    assert not (machine.checkout / "config.local.sh").exists()


# ── configuration ──


@pytest.mark.parametrize("name", ["projects", "my projects", "it's", 'a "b" c', "$(touch x)`y`", "über\\n", "-n"])
def test_projects_dir_is_read_back_as_it_was_given(machine: Machine, name: str) -> None:
    projects = machine.folder / name
    assert machine.setup("--non-interactive", PROJECTS_DIR=str(projects)).returncode == 0
    assert machine.configured_projects() == str(projects)
    line = (machine.checkout / "config.local.sh").read_text().splitlines()[-1]
    assert shlex.split(line) == ["export", f"PROJECTS_DIR={projects}"]
    assert projects.is_dir()


def test_projects_go_to_the_home_when_nothing_is_said(machine: Machine) -> None:
    assert machine.setup("--non-interactive").returncode == 0
    assert machine.configured_projects() == str(machine.home / "projects")


def test_an_edited_config_stays_and_the_difference_is_told(machine: Machine) -> None:
    mine = f'export PROJECTS_DIR="{machine.folder}/mine"\n'
    (machine.checkout / "config.local.sh").write_text(mine)
    settings = machine.home / ".config/tmux-orchestrator/config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("agent: rehearsal\n")
    done = machine.setup("--non-interactive", PROJECTS_DIR=str(machine.folder / "other"))
    assert done.returncode == 0
    assert f"config.local.sh says PROJECTS_DIR={machine.folder}/mine; kept." in done.stdout
    assert (machine.checkout / "config.local.sh").read_text() == mine
    assert settings.read_text() == "agent: rehearsal\n"
    assert not (machine.folder / "other").exists()


def test_the_state_folder_is_private_and_the_settings_are_the_example(machine: Machine) -> None:
    assert machine.setup("--non-interactive").returncode == 0
    state = machine.home / ".local/state/tmux-orchestrator"
    assert state.stat().st_mode & 0o777 == 0o700
    settings = machine.home / ".config/tmux-orchestrator/config.yaml"
    assert settings.read_bytes() == (ROOT / "config.example.yaml").read_bytes()


def test_a_script_that_lost_its_mode_can_be_started_again(machine: Machine) -> None:
    script = machine.checkout / "scheduler.py"
    script.chmod(0o644)
    assert machine.setup("--non-interactive").returncode == 0
    assert os.access(script, os.X_OK)


# ── running it again, and failing ──


def test_a_second_run_changes_nothing_and_says_so(machine: Machine) -> None:
    machine.setup("--non-interactive")
    before = machine.snapshot()
    machine.forget_calls()
    done = machine.setup("--non-interactive")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing to do: everything is in place.\n", "")
    assert machine.snapshot() == before
    assert not [call for call in machine.calls("uv") if call.startswith(("uv sync", "uv pip"))]
    assert machine.calls("apt-get") == []


def test_environments_hold_the_locked_versions(machine: Machine) -> None:
    machine.setup("--non-interactive", "--dev")
    installs = [call for call in machine.calls("uv") if call.startswith("uv pip install")]
    assert len(installs) == 3
    assert all("--require-hashes --constraint requirements.lock -r pyproject.toml" in call for call in installs)
    assert [call.endswith("--extra dev") for call in installs].count(True) == 1


def test_an_environment_gets_the_extra_that_its_script_names(machine: Machine) -> None:
    door = machine.checkout / "mcp_server.py"
    door.write_text(DOOR.format(extra="[mcp]"))
    door.chmod(0o755)
    machine.setup("--non-interactive")  # it is no door of the tests: everybody gets it
    installs = [call for call in machine.calls("uv") if call.startswith("uv pip install")]
    assert [call.endswith("-r pyproject.toml --extra mcp") for call in installs].count(True) == 1
    assert not any("--extra dev" in call for call in installs)


def test_a_new_lock_makes_the_environments_anew(machine: Machine) -> None:
    machine.setup("--non-interactive")
    machine.forget_calls()
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("# another\n")
    done = machine.setup("--non-interactive")
    assert "Prepared the environments of: claude_control.py scheduler.py." in done.stdout
    assert [c for c in machine.calls("uv") if c.startswith("uv sync")] != []


def test_an_environment_that_cannot_be_made_is_named_and_no_config_is_left(machine: Machine) -> None:
    done = machine.setup("--non-interactive", BROKEN_DOOR="scheduler.py")
    assert done.returncode == 1
    assert "the environment of scheduler.py was not made" in done.stderr
    assert "no matching version" in done.stderr
    assert not (machine.checkout / "config.local.sh").exists()
    again = machine.setup("--non-interactive")
    assert "Prepared the environments of: scheduler.py." in again.stdout


def test_an_unknown_option_is_a_usage_error(machine: Machine) -> None:
    before = machine.snapshot()
    done = machine.setup("--verfy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown option --verfy" in done.stderr and "Usage:" in done.stderr
    assert machine.snapshot() == before


def test_help_tells_every_option(machine: Machine) -> None:
    done = machine.setup("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--non-interactive", "--dev", "--verify", "PROJECTS_DIR"))


# ── the environment of the service ──


def service_of(machine: Machine) -> Path:
    return machine.home / ".local/share/tmux-orchestrator/service"


def test_the_service_gets_an_environment_outside_of_uvs_cache_and_nothing_else_is_done(machine: Machine) -> None:
    done = machine.setup("--service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Prepared the environment of the service.\n", "")
    assert os.access(service_of(machine) / "bin/python", os.X_OK)
    assert [path.name for path in service_of(machine).parent.iterdir()] == ["service"]
    assert "--require-hashes --constraint requirements.lock -r pyproject.toml" in machine.calls("uv")[-1]
    assert not (machine.checkout / "config.local.sh").exists()
    assert machine.calls("apt-get") == []
    before = machine.snapshot()
    machine.forget_calls()
    assert machine.setup("--service").stdout == ""
    assert machine.snapshot() == before
    assert not [call for call in machine.calls("uv") if call.startswith(("uv venv", "uv pip"))]


def test_setup_renews_the_environment_of_the_service_where_there_is_one(machine: Machine) -> None:
    machine.setup("--non-interactive")
    assert not service_of(machine).exists()
    machine.setup("--service")
    (service_of(machine) / "of-the-old-one").touch()
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("# another\n")
    assert machine.setup("--verify").returncode == 1
    assert "Prepared the environment of the service." in machine.setup("--non-interactive").stdout
    assert not (service_of(machine) / "of-the-old-one").exists()
    verified = machine.setup("--verify")
    assert verified.returncode == 0
    assert any(line.split()[:2] == ["service", "found"] for line in verified.stdout.splitlines())
    (service_of(machine) / "bin/python").unlink()
    verified = machine.setup("--verify")
    assert verified.returncode == 1
    assert any(line.split()[:2] == ["service", "missing"] for line in verified.stdout.splitlines())


def test_an_environment_of_the_service_that_cannot_be_made_leaves_the_old_one(machine: Machine) -> None:
    machine.setup("--service")
    (service_of(machine) / "of-the-old-one").touch()
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("# another\n")
    done = machine.setup("--service", BROKEN_PIP="yes")
    assert done.returncode == 1
    assert "the environment of the service was not made" in done.stderr and "no such hash" in done.stderr
    assert (service_of(machine) / "of-the-old-one").exists()
    assert [path.name for path in service_of(machine).parent.iterdir()] == ["service"]
    assert machine.setup("--service").returncode == 0


def test_the_service_needs_a_uv_that_is_there(machine: Machine) -> None:
    machine.lose("uv")
    done = machine.setup("--service")
    assert done.returncode == 1
    assert "uv 0.6.10 is missing" in done.stderr and "next: ./setup.sh" in done.stderr
    assert machine.calls("apt-get") == []


# ── what the tests need ──


def test_dev_installs_what_the_tests_need(machine: Machine) -> None:
    done = machine.setup("--non-interactive", "--dev")
    assert (done.returncode, done.stderr) == (0, "")
    packages = "nodejs npm shellcheck chromium nats-server systemd iproute2"
    assert machine.calls("apt-get")[1:] == [f"apt-get install --yes --no-install-recommends {packages}"]
    words = "install --prefix .dev/claude --no-save --ignore-scripts @anthropic-ai/claude-code@2.1.330"
    assert machine.calls("npm") == [f"npm {words}"]
    machine.forget_calls()
    assert machine.setup("--non-interactive", "--dev").stdout == "Nothing to do: everything is in place.\n"
    assert machine.calls("npm", "apt-get") == []


@pytest.mark.parametrize("package", ["chromium", "nats-server", "systemd", "iproute2"])
def test_a_system_without_a_package_that_few_tests_need_goes_on_without_it(machine: Machine, package: str) -> None:
    (machine.store / package).unlink()
    done = machine.setup("--non-interactive", "--dev")
    assert done.returncode == 0
    assert f"no package of {package}" in done.stdout


def test_a_chromium_that_nothing_can_install_does_not_end_the_setup(bare_machine: Machine) -> None:
    bare_machine.variables["SYSTEM"] = "Darwin"
    for name in ("npm", "shellcheck"):
        (bare_machine.store / name).rename(bare_machine.bin / name)
    done = bare_machine.setup("--non-interactive", "--dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no package of chromium" in done.stdout


# ── verify ──


def test_verify_of_a_new_machine_fails_names_what_is_missing_and_writes_nothing(machine: Machine) -> None:
    machine.lose("tmux")
    before = machine.snapshot()
    done = machine.setup("--verify")
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "missing" in rows["tmux"] and ">= 3.0" in rows["tmux"]
    assert "missing" in rows["config.local.sh"] and "./setup.sh" in rows["config.local.sh"]
    assert "0 of 2" in rows["environments"]
    assert "2.39.5" in rows["git"] and "missing" not in rows["git"]
    assert machine.snapshot() == before


def test_verify_after_setup_holds_without_claude_and_writes_nothing(machine: Machine) -> None:
    machine.setup("--non-interactive")
    before = machine.snapshot()
    done = machine.setup("--verify")
    assert done.returncode == 0
    assert "optional: the demo and rehearsal need none" in done.stdout
    assert machine.snapshot() == before


@pytest.mark.parametrize(
    ("told", "holds"),
    [
        ("tmux 2.9a", False),
        ("tmux 3.0", True),
        ("tmux 3.5a", True),
        ("tmux next-3.6", True),
        ("tmux 10.0", True),  # not compared as text
        ("", False),
    ],
)
def test_versions_are_compared_as_numbers(machine: Machine, told: str, holds: bool) -> None:
    machine.setup("--non-interactive")
    machine.put("tmux", f"echo {told}")
    assert (machine.setup("--verify").returncode == 0) is holds


@pytest.mark.parametrize(("told", "expected"), [("2.1.330 (Claude Code)", ""), ("1.0.9 (Claude Code)", "optional")])
def test_verify_tells_an_old_claude(machine: Machine, told: str, expected: str) -> None:
    machine.setup("--non-interactive")
    machine.put("claude", f"echo '{told}'")
    done = machine.setup("--verify")
    row = next(line for line in done.stdout.splitlines() if line.startswith("claude"))
    assert done.returncode == 0
    assert told.split()[0] in row
    assert ("optional" in row) is bool(expected)
