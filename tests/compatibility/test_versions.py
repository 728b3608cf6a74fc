"""Every tmux that can be had does all that a team needs, with a person's odd settings and without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility import jobs
from tests.compatibility.machines import INSTALLED, machine, others
from tests.conftest import sampled

PROGRAMS = others()


@pytest.mark.parametrize("version", sampled([INSTALLED, *PROGRAMS], [INSTALLED]))
def test_a_version_does_all_the_jobs(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with machine(tmp_path, monkeypatch, program=PROGRAMS.get(version)) as bench:
        jobs.work_through(bench)
