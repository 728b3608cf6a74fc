"""Whatever a person has in ~/.tmux.conf, a team is launched, is told things, comes back and ends."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.compatibility import jobs
from tests.compatibility.machines import machine

#: What people set, each alone with --long.
SETTINGS = {
    "base-index": "set -g base-index 1\nsetw -g pane-base-index 1\nset -g renumber-windows on",
    "default-command": "set -g default-command 'echo hello; exit 1'\nset -g default-shell /bin/false",
    "remain-on-exit": "setw -g remain-on-exit on",
    "automatic-rename": "setw -g automatic-rename on\nsetw -g allow-rename on\nset -g set-titles on",
    "focus-events": "set -g focus-events on\nset -g mouse on",
    "prefix": "unbind -a\nset -g prefix C-a\nbind C-a send-prefix\nbind -n Enter kill-server\nbind -n l kill-server",
    "mode-keys": "setw -g mode-keys vi\nset -g status-keys vi",
    "status": "set -g status off",
    "status-interval": "set -g status-interval 1\nset -g status-right '#(date +%S)'",
    "set-clipboard": "set -s set-clipboard on",
    "exit-empty": "set -s exit-empty off",
    "destroy-unattached": "set -g destroy-unattached on",
    "detach-on-destroy": "set -g detach-on-destroy off",
    "history-limit": "set -g history-limit 0",
    "window-size": "setw -g window-size smallest\nsetw -g aggressive-resize on",
    "pane-border-status": "setw -g pane-border-status top\nset -g status 2",
    "default-size": "set -g default-size 80x24",
    "update-environment": "set -g update-environment 'PATH HOME TMUX_ORCHESTRATOR_HOME NO_SUCH_VARIABLE'",
    "escape-time": "set -s escape-time 500\nset -g assume-paste-time 0\nset -g repeat-time 2000",
    "extended-keys": "set -sq extended-keys always",
    "default-terminal": "set -g default-terminal xterm-256color",
    "a dumb terminal": "set -g default-terminal dumb",
    "alternate-screen": "setw -g alternate-screen off",
    "synchronize-panes": "setw -g synchronize-panes on",
    "lock-after-time": "set -g lock-after-time 1\nset -g lock-command 'sleep 600'",
    "monitors": "setw -g monitor-activity on\nset -g visual-activity on\nsetw -g monitor-silence 1",
    "hooks that open windows": "set-hook -g session-created 'new-window'\nset-hook -g after-new-session 'new-window'",
    "hooks that split windows": "set-hook -g after-new-window 'split-window -h'",
    "hooks that name windows": "set-hook -g after-new-window 'rename-window mine'",
    "hooks that choose windows": "set-hook -g window-linked 'last-window'",
    "hooks that start again what has ended": "set-hook -g pane-died 'respawn-pane'",
    "a mistake": "set -g no-such-option on\nno-such-command",
}

#: What a test run looks at: several that do not touch each other.
TOGETHER = {
    "names and numbers": ("base-index", "remain-on-exit", "automatic-rename", "destroy-unattached", "status-interval"),
    "windows of one's own": (
        *("hooks that open windows", "hooks that split windows", "hooks that start again what has ended"),
        *("default-command", "exit-empty"),
    ),
    "a small screen": (
        *("window-size", "pane-border-status", "history-limit", "focus-events", "prefix", "mode-keys"),
        *("synchronize-panes", "alternate-screen", "a mistake"),
    ),
}

SHELLS = ("/usr/bin/fish", "/usr/bin/zsh", "/bin/dash", "/bin/false", "/usr/sbin/nologin", "/no/such/shell")


@pytest.mark.parametrize("name", TOGETHER)
def test_a_team_works_with_several_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = "\n".join(SETTINGS[setting] for setting in TOGETHER[name])
    with machine(tmp_path, monkeypatch, conf=f"{conf}\n") as bench:
        jobs.work_through(bench, is_watched=name == "a small screen")


@pytest.mark.long
@pytest.mark.parametrize("name", SETTINGS)
def test_a_team_works_with_a_setting(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with machine(tmp_path, monkeypatch, conf=f"{SETTINGS[name]}\n") as bench:
        jobs.work_through(bench, is_watched=True)


@pytest.mark.long
@pytest.mark.parametrize("shell", SHELLS)
def test_a_team_works_whatever_the_shell(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shell != "/no/such/shell" and not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    with machine(tmp_path, monkeypatch, conf=f"set -g default-shell {shell}\n") as bench:
        jobs.work_through(bench)
