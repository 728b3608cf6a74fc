"""The team for a large repository, without AI: dynamic_team.py against `git ls-files` alone."""

from __future__ import annotations

import subprocess

from benchmarks.figures import Alternative, Figure
from benchmarks.machine import rehearsal
from benchmarks.teams import Counts

_FILES = 50_000
_ENDINGS = ("py", "ts", "md", "json", "sql", "tf", "css")


def choosing(counts: Counts) -> list[Figure]:
    """Tracked files are entries of the index: git lists them whether they are checked out or not."""
    with rehearsal() as machine:
        project = machine.project()
        index = ("git", "-C", str(project), "update-index", "--index-info")
        blob = subprocess.run(
            ["git", "-C", str(project), "rev-parse", "HEAD:spec.md"], check=True, capture_output=True, text=True
        ).stdout.strip()
        names = (f"part{n % 500}/module{n % 7}/file{n}.{_ENDINGS[n % 7]}" for n in range(_FILES))
        lines = "".join(f"100644 {blob}\t{name}\n" for name in names)
        subprocess.run(index, input=lines, text=True, check=True)
        subprocess.run(["git", "-C", str(project), "checkout-index", "--all", "--quiet"], check=True)
        identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
        subprocess.run(["git", "-C", str(project), *identity, "commit", "-qm", "Many files"], check=True)
        launch = ("--spec", str(project / "spec.md"), "--agent", "rehearsal", "--no-ai", "--dry-run")
        alone, whole, planned = [], [], []
        for _ in range(counts.starts):
            alone.append(machine.run("git", "-C", str(project), "ls-files", "-z")[0])
            whole.append(machine.door("dynamic_team.py", "--project", str(project))[0])
            planned.append(machine.door("auto_orchestrate.py", *launch)[0])
    what = f"a repository of {_FILES:,} files"
    other = (Alternative("`git ls-files` alone", tuple(alone)),)
    return [
        Figure(
            f"the team for {what} by `dynamic_team.py`, without AI", "s", tuple(whole), target=1.0, alternatives=other
        ),
        Figure(f"team and plan for {what}, without AI", "s", tuple(planned), target=1.0, headline=True),
    ]
