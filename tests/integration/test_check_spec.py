"""`auto_orchestrate.py --check-spec`: what was understood of a spec, or what is wrong with it and where."""

from __future__ import annotations

from tests.conftest import Bench

SPEC = """# A \x1b[31mwish

DELIVERABLES:
1. A file

ACCEPTANCE CRITERIA:
- It is there [check: test -f a]
- It is nice
"""


def test_what_was_understood(bench: Bench) -> None:
    path = bench.folder / "wish.md"
    path.write_text(SPEC)
    done = bench.ok("auto_orchestrate.py", "--check-spec", "--spec", str(path))
    assert done.out == (f"{path}: A wish\n  C1  It is there [check: test -f a]\n  C2  It is nice\n  D1  A file\n")
    (found,) = bench.ok("auto_orchestrate.py", "--check-spec", "--spec", str(path), "--json").json
    assert found["criteria"][0] == {"id": "C1", "text": "It is there", "check": "test -f a", "line": 7}
    assert found["deliverables"] == [{"id": "D1", "text": "A file", "line": 4}]
    assert not bench.home.exists(), "it only reads"


def test_what_is_wrong_and_where(bench: Bench) -> None:
    path = bench.folder / "wish.md"
    path.write_text(SPEC.replace("test -f a]", "test -f a"))
    done = bench.door("auto_orchestrate.py", "--check-spec", "--spec", str(path))
    assert (done.code, done.out) == (1, "")
    assert f"{path}, line 7: the check is not closed by ]" in done.err
    assert bench.door("auto_orchestrate.py", "--check-spec").code == 2
    assert bench.door("auto_orchestrate.py", "--check-spec", "--resume").code == 2
