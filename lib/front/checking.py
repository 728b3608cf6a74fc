"""What `auto_orchestrate.py --check-spec` does: reads specs, says what was understood, and nothing else."""

from __future__ import annotations

from pathlib import Path

from lib import planning
from lib.errors import OrchestratorError, Usage, together
from lib.front import plans
from lib.front.cli import Output
from lib.front.starting import Request
from lib.queue import intake


def check(output: Output, cwd: Path, request: Request) -> None:
    """Print what each spec says. Raises with all that is wrong, by file and line; then nothing is printed."""
    if not request.specs:
        raise Usage("--check-spec needs a spec", hint="auto_orchestrate.py --check-spec --spec SPEC")
    lines: list[str] = []
    data: list[dict[str, object]] = []
    wrong: list[OrchestratorError] = []
    for path in dict.fromkeys(one for named in request.specs for one in intake.files_of(cwd, named)):
        try:
            spec = planning.read_spec(path)
        except OrchestratorError as error:
            wrong.append(error)
            continue
        lines += [f"{path}: {plans.line(spec.title)}", *plans.spec_lines(spec)]
        lines += [] if spec.criteria else ["  it has no success criteria: nothing says when the work is done"]
        data.append({"spec": str(path), **plans.spec_data(spec)})
    if wrong:
        raise together(wrong, "some specs cannot be taken")
    output.answer("\n".join(lines), data)
