"""The probe itself, in its environment: `python -m lib.probing FOLDER EXECUTABLE SECONDS [CHECK ...]`.

It prints a line of JSON for each result.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lib.probing import END, Result, Verdict
from lib.probing.checks import run
from lib.probing.scene import Scene


def main(folder: str, executable: str, seconds: str, *names: str) -> None:
    with Scene.made(Path(folder), executable, seconds=float(seconds)) as scene:
        for result in run(scene, names):
            print(json.dumps(vars(result)), flush=True)
    print(json.dumps(vars(Result(END, Verdict.HOLDS))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
