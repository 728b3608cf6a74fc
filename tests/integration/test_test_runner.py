"""Which tests test_integration.py selects, and by which names the README offers them."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from lib.errors import NotFound
from tests import doors
from tests.conftest import ROOT, Bench


@pytest.fixture
def runner() -> ModuleType:
    doors.load(ROOT / "test_integration.py")
    return sys.modules["door_test_integration"]


def test_every_file_of_a_subject_is_there(runner: ModuleType) -> None:
    files = [file for group in runner.SUBJECTS.values() for file in group]
    assert [file for file in files if not (ROOT / "tests" / file).exists()] == []


def test_the_readme_names_each_subject_and_no_other(runner: ModuleType) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("### test_integration.py")[2]
    said = set(re.findall(r"`(Test\w+)`", section.partition("\n## ")[0]))
    assert said == set(runner.SUBJECTS)


def test_a_subject_is_its_files_and_a_class_a_name(runner: ModuleType) -> None:
    launch = str(ROOT / "tests/journeys/test_launch.py")
    assert runner.selection("TestFullOrchestration", None) == [launch]
    assert runner.selection("TestFullOrchestration", "role") == ["-k", "(role)", launch]
    assert runner.selection("TestCrashLoop", "role") == ["-k", "(TestCrashLoop) and (role)"]
    assert runner.selection(None, None) == []


def test_a_class_that_is_none_is_told_with_those_that_are(runner: ModuleType) -> None:
    with pytest.raises(NotFound) as raised:
        runner.selection("TestNothing", None)
    assert raised.value.hint and "TestRecovery" in raised.value.hint and "TestCrashLoop" in raised.value.hint


def test_a_subject_runs(bench: Bench) -> None:
    bench.environment["TMPDIR"] = str(bench.folder)  # pytest tidies up there after others
    done = bench.door("test_integration.py", "TestRealClaudeCode", "-k", "no_test_has_such_a_name", "--quiet")
    assert done.code == 3, done.out + done.err  # pytest has looked, and found none
