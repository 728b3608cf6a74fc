# /// script
# requires-python = ">=3.11"
# dependencies = ["libtmux==0.62.0"]
# ///
"""libtmux, asked by lines of JSON: types into a pane, or looks at every pane of a server. It is told the socket."""

from __future__ import annotations

import json
import sys

import libtmux  # type: ignore[import-not-found]


def main() -> None:
    server = libtmux.Server(socket_path=sys.argv[1])
    for line in sys.stdin:
        question = json.loads(line)
        answer = send(server, **question["send"]) if "send" in question else look(server)
        print(json.dumps(answer), flush=True)


def send(server: libtmux.Server, pane: str, text: str) -> dict[str, object]:
    """Type a text and Enter, as `Pane.send_keys` does."""
    server.panes.get(pane_id=pane).send_keys(text, enter=True)
    return {}


def look(server: libtmux.Server) -> dict[str, object]:
    """The state and the screen of each pane."""
    found = {pane.pane_id: (pane.pane_pid, pane.pane_current_command, pane.capture_pane()) for pane in server.panes}
    return {"panes": len(found), "lines": sum(len(lines) for _, _, lines in found.values())}


if __name__ == "__main__":
    main()
