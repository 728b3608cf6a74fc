"""What every hook of an agent runs: keep the payload in the spool, wake the daemon, and never disturb the agent.

It is started several times a turn, so it is a program of its own that imports nothing but `os`, `sys` and `time`
(docs/decisions/hooks.md has the measurement). `lib/signals.py` reads the spool.
Usage: hook.py HOME AGENT EPOCH < payload
"""

import os
import sys
import time


def main(home: str, agent: str, epoch: str) -> None:
    spool = home + "/spool"
    payload = sys.stdin.buffer.read()
    # The name sorts by time; the reader takes only complete files, which is what the rename makes them.
    name = f"{time.time_ns():020d}-{os.getpid()}-{agent}-{epoch}"
    os.makedirs(spool, mode=0o700, exist_ok=True)
    descriptor = os.open(f"{spool}/.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    while payload:  # a write to a full disk raises: then nothing is renamed, and nothing half is read
        payload = payload[os.write(descriptor, payload) :]
    os.close(descriptor)
    os.rename(f"{spool}/.{name}", f"{spool}/{name}.json")
    pipe = os.open(home + "/wake", os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"!")


if __name__ == "__main__":
    # Whatever happens (a full disk, no daemon to wake), the agent's turn goes on: a hook that fails shows in it.
    try:
        main(*sys.argv[1:4])
    finally:
        os._exit(0)
