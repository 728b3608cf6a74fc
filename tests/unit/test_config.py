"""The settings: defaults, the user's file, and where everything lives."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from lib import config
from lib.config import ROOT, FleetSettings, Settings
from lib.errors import OrchestratorError
from lib.models import Program


def load(folder: Path, text: str) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path / "config.yaml") == Settings()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == Settings()


def test_the_example_holds_every_setting_with_its_default_in_the_same_order(tmp_path: Path) -> None:
    text = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
    assert load(tmp_path, text) == Settings()
    assert list(yaml.safe_load(text)) == [field.name for field in fields(Settings)]


SET = [
    ("agent: rehearsal", "agent", Program.REHEARSAL),
    ("claude_command: /opt/claude", "claude_command", "/opt/claude"),
    ("permission_mode: auto", "permission_mode", "auto"),
    ("model: opus", "model", "opus"),
    # Empty is no choice.
    ("model:", "model", None),
    ("trust_project: true", "trust_project", True),
    # A list, and one of things that YAML takes for numbers.
    ("pass_environment: [A, B_*]", "pass_environment", ("A", "B_*")),
    ("pass_environment: []", "pass_environment", ()),
    ("pass_environment: [1]", "pass_environment", ("1",)),
    # A whole number of seconds.
    ("launch_timeout_seconds: 5", "launch_timeout_seconds", 5.0),
    ("launch_timeout_seconds: 0.5", "launch_timeout_seconds", 0.5),
    ("check_in_minutes: {developer: 10}", "check_in_minutes", {"developer": 10}),
]


@pytest.mark.parametrize(("text", "name", "value"), SET)
def test_an_entry_is_read(tmp_path: Path, text: str, name: str, value: object) -> None:
    found = getattr(load(tmp_path, text), name)
    assert found == value
    assert type(found) is type(value)


WRONG_RELATIONS = [
    ("relates_to: ../frontend", "relates_to must be a list, not '../frontend'"),
    ("relates_to: [../frontend, 3]", "relates_to: entry 2 must be the path or the name of a project, not 3"),
    ("relates_to: ['']", "relates_to: entry 1 must be"),
    ("relates_to: [null]", "relates_to: entry 1 must be the path or the name of a project, not None"),
    ("relates_to: [{name: frontend}]", "relates_to: entry 1 must be"),
    # What would reach a terminal.
    (r'relates_to: ["\e[31mfrontend"]', "relates_to: entry 1 must be"),
    ("relate_to: [../frontend]", "unknown setting 'relate_to'"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_RELATIONS)
def test_a_wrong_relation_is_named_with_its_key(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / config.PROJECT_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(OrchestratorError) as caught:
        config.load_project(tmp_path)
    assert sentence in caught.value.sentence


def test_a_project_names_the_projects_that_it_concerns(tmp_path: Path) -> None:
    (tmp_path / config.PROJECT_FILE).write_text("relates_to: [../frontend, billing, ~/docs site]\n", encoding="utf-8")
    assert config.load_project(tmp_path).relates_to == ("../frontend", "billing", "~/docs site")


WRONG = [
    # A name that nobody knows, with the one that was meant.
    ("agnet: claude", "unknown setting 'agnet'", "'agent'"),
    ("colour: red", "unknown setting 'colour'", "config.example.yaml"),
    # A value outside its choices.
    ("agent: gpt", "agent must be one of claude, rehearsal", None),
    ("permission_mode: all", "permission_mode must be one of default,", None),
    # A value of another type.
    ("auto_start: 1", "auto_start must be true or false", None),
    ("auto_start: 'no'", "auto_start must be true or false", None),
    ("launch_timeout_seconds: soon", "launch_timeout_seconds must be a number", None),
    ("launch_timeout_seconds: true", "launch_timeout_seconds must be a number", None),
    ("pass_environment: A", "pass_environment must be a list", None),
    ("claude_command: 3", "claude_command must be text", None),
    ("model: [a]", "model must be text", None),
    ("check_in_minutes: 10", "check_in_minutes must be", None),
    ("check_in_minutes: {developer: soon}", "check_in_minutes", None),
    ("check_in_minutes: {developer: 0}", "check_in_minutes", None),
    # A number that no time is.
    ("launch_timeout_seconds: 0", "launch_timeout_seconds must be above 0", None),
    ("launch_timeout_seconds: -5", "launch_timeout_seconds must be above 0", None),
    ("launch_timeout_seconds: .inf", "launch_timeout_seconds must be above 0", None),
    ("launch_timeout_seconds: .nan", "launch_timeout_seconds must be above 0", None),
    # An address, a name and a label that NATS or TLS would misread.
    ("fleet: {url: 'http://box:4222'}", "fleet.url must be nats://", None),
    ("fleet: {url: 'tls://me:secret@box:4222'}", "fleet.url must be nats://", None),
    ("fleet: {host: Box_1}", "fleet.host must be of the letters", None),
    ("fleet: {host: box.}", "fleet.host must be of the letters", None),
    ("fleet: {labels: [gpu, 'a.b']}", "fleet.labels must be of the letters", None),
    ("fleet: {agents: 0}", "fleet.agents must be above 0", None),
    # No settings at all.
    ("just text", "`name: value`", None),
    ("- a\n- b", "`name: value`", None),
    ("a: [", "not valid YAML", None),
]


@pytest.mark.parametrize(("machine", "name"), [("Box-7.lan", "box-7"), ("my_box", "my-box"), ("...", "host")])
def test_a_host_of_a_fleet_has_the_short_name_of_its_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, name: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=machine))
    assert FleetSettings().name() == name
    assert FleetSettings(host="other").name() == "other"


@pytest.mark.parametrize(("text", "words", "hint"), WRONG)
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, text: str, words: str, hint: str | None) -> None:
    with pytest.raises(OrchestratorError) as raised:
        load(tmp_path, text)
    assert words in raised.value.sentence
    assert str(tmp_path / "config.yaml") in raised.value.sentence
    if hint:
        assert hint in (raised.value.hint or "")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OrchestratorError, match="not valid YAML"):
        config.load(path)


HOMES = [
    # Named, and with a tilde.
    ({"TMUX_ORCHESTRATOR_HOME": "/srv/state"}, "/srv/state"),
    ({"TMUX_ORCHESTRATOR_HOME": "~/state"}, "{home}/state"),
    # It wins over the desktop's folder.
    ({"TMUX_ORCHESTRATOR_HOME": "/srv/state", "XDG_STATE_HOME": "/x"}, "/srv/state"),
    ({"XDG_STATE_HOME": "/x"}, "/x/tmux-orchestrator"),
    # Empty is not set.
    ({"TMUX_ORCHESTRATOR_HOME": "", "XDG_STATE_HOME": ""}, "{home}/.local/state/tmux-orchestrator"),
    ({}, "{home}/.local/state/tmux-orchestrator"),
]


@pytest.mark.parametrize(("variables", "path"), HOMES)
def test_the_state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], path: str) -> None:
    clear(monkeypatch, tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert config.state_home() == Path(path.format(home=tmp_path))
    assert config.state_home().is_absolute()


CONFIGS = [
    ({"TMUX_ORCHESTRATOR_CONFIG": "/srv/c.yaml"}, "/srv/c.yaml"),
    ({"XDG_CONFIG_HOME": "/x"}, "/x/tmux-orchestrator/config.yaml"),
    ({}, "{home}/.config/tmux-orchestrator/config.yaml"),
]


@pytest.mark.parametrize(("variables", "path"), CONFIGS)
def test_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], path: str) -> None:
    clear(monkeypatch, tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert config.config_path() == Path(path.format(home=tmp_path))


PROJECTS = [
    # As setup.sh writes it.
    ("# the choices\nexport PROJECTS_DIR='/srv/my projects'\n", "/srv/my projects"),
    ('export PROJECTS_DIR="$HOME/projects"\n', "{home}/projects"),
    ("export PROJECTS_DIR=/srv/projects\n", "/srv/projects"),
    # Somebody emptied it.
    ("export PROJECTS_DIR=''\n", None),
    ("# export PROJECTS_DIR=/srv\n", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "path"), PROJECTS)
def test_the_projects_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, path: str | None
) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    (tmp_path / "config.local.sh").write_text(text)
    assert config.projects_dir() == (Path(path.format(home=tmp_path)) if path else None)


def test_the_projects_folder_of_the_shell_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("PROJECTS_DIR", "~/elsewhere")
    assert config.projects_dir() == tmp_path / "elsewhere"


def clear(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("TMUX_ORCHESTRATOR_HOME", "TMUX_ORCHESTRATOR_CONFIG", "PROJECTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
