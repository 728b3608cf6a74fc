# /// script
# requires-python = ">=3.11"
# dependencies = ["huey==3.5.4"]
# ///
"""huey on SQLite: fills a queue or works it off, and prints its seconds.

Its arguments are the file, `fsync` (each commit waits for the disk) or `lax`, `fill` or `work`, and how many.
"""

from __future__ import annotations

import sys
import time

from huey import SqliteHuey  # type: ignore[import-not-found]


def main() -> None:
    path, durability, what, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    queue = SqliteHuey("specs", filename=path, fsync=durability == "fsync")

    @queue.task()  # type: ignore[untyped-decorator]
    def take(name: str) -> str:
        return name

    print("ready", flush=True)
    sys.stdin.read(1)
    began = time.perf_counter()
    done = fill(take, count) if what == "fill" else work(queue)
    print(time.perf_counter() - began, done, flush=True)


def fill(take: object, count: int) -> int:
    """Put so many calls into the queue."""
    for number in range(count):
        take(f"spec-{number}.md")  # type: ignore[operator]
    return count


def work(queue: SqliteHuey) -> int:
    """Take calls out of the queue and run them, until it is empty. Returns how many."""
    done = 0
    while (task := queue.dequeue()) is not None:
        queue.execute(task)
        done += 1
    return done


if __name__ == "__main__":
    main()
