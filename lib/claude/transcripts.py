"""What Claude Code's transcripts say: what was submitted, read, written and answered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

#: What an agent has said last stands in one of the last entries; reading so much takes a millisecond.
TAIL_BYTES = 64 * 1024
#: How much a model takes in at once; the transcript does not say it.
_CONTEXT_WINDOW, _LONG_CONTEXT_WINDOW = 200_000, 1_000_000
_CONTEXT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def find(config_dir: Path, conversation_id: str) -> Path | None:
    """The transcript of a conversation, or None before its first turn.

    Found by its name: the folder's name is made from the working directory by a rule that has changed
    between versions.
    """
    return next(config_dir.glob(f"projects/*/{conversation_id}.jsonl"), None)


def prompts(path: Path, *, start: int = 0, since: int = 0, has_read: bool = False) -> Iterator[str]:
    """What a transcript says was submitted to the agent: typed prompts, and those accepted while it was busy.

    `start` is a position in bytes, such as the file's size before something was typed; `since` a time in UTC
    milliseconds. With `has_read` only what the agent has come to read: what it accepted while busy once, and then.
    """
    for entry in entries(path, start):
        if since and written_at(entry) < since:
            continue
        if entry.get("type") == "user" or entry.get("subtype") == "local_command":
            yield from texts_in(content_of(entry))
        elif entry.get("type") == "queue-operation" and entry.get("operation") == "enqueue" and not has_read:
            yield from texts_in(entry.get("content"))


def submissions(path: Path) -> Iterator[str]:
    """The same, each once: one that was accepted while the agent was busy stands there again when it is read."""
    accepted: list[str] = []
    for entry in entries(path, 0):
        if entry.get("type") == "queue-operation" and entry.get("operation") == "enqueue":
            texts = list(texts_in(entry.get("content")))
            accepted += texts
            yield from texts
        elif entry.get("type") == "user":
            for text in texts_in(content_of(entry)):
                if text in accepted:
                    accepted.remove(text)
                else:
                    yield text


def unread(path: Path) -> list[str]:
    """The prompts that were accepted while the agent was busy and that it never came to read.

    Claude Code keeps them in memory: they are lost when it is killed, and `--resume` does not bring them back.
    """
    waiting: list[str] = []
    read: set[str] = set()
    for entry in entries(path, 0):
        if entry.get("type") == "user":
            read.update(texts_in(content_of(entry)))
        elif entry.get("type") == "queue-operation":
            if entry.get("operation") == "enqueue":
                waiting += texts_in(entry.get("content"))
            elif waiting:  # dequeue, remove: in the order in which they came
                waiting.pop(0)
    # What was lost with an earlier life and sent again since then has been read.
    return [prompt for prompt in waiting if prompt not in read]


def written(path: Path, *, known: int = 0) -> int:
    """Where in a transcript the last entry ends that the agent has made itself, in bytes.

    A text that it has only accepted while it was busy is not its doing. `known` is what an earlier call has said.
    """
    size = path.stat().st_size
    end = at = known if 0 < known <= size else max(0, size - TAIL_BYTES)
    if at == size:
        return end
    with path.open("rb") as lines:
        lines.seek(at)
        for line in lines:
            at += len(line)
            if line.endswith(b"\n") and not _is_acceptance(line):
                end = at
    return end


def _is_acceptance(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:  # cut off at the beginning
        return True
    return isinstance(entry, dict) and (entry.get("type"), entry.get("operation")) == ("queue-operation", "enqueue")


def written_by_helpers(path: Path) -> int:
    """The bytes of the transcripts of a conversation's subagents; its own does not grow while they work."""
    return sum(Path(helper).stat().st_size for helper in helpers(path))


def helpers(path: Path | str) -> list[str]:
    """The transcripts of the subagents that work for a conversation, also of those that these have started."""
    folder = f"{str(path).removesuffix('.jsonl')}/subagents"
    if not os.path.isdir(folder):  # noqa: PTH112 - asked of every agent every minute; globbing takes ten times as long
        return []
    found = [f"{place}/{name}" for place, _, names in os.walk(folder) for name in names if name.endswith(".jsonl")]
    return sorted(found)


def ran_command(path: Path, command: str, *, start: int, since: int) -> bool:
    """Whether a transcript, from a position and a time on, says that a slash command was run."""
    name = command.split()[0]
    told = prompts(path, start=start, since=since)
    return any(f"<command-name>{name}</command-name>" in prompt for prompt in told)


def dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def context_used(path: Path) -> tuple[int, int] | None:
    """How many tokens a transcript's last answer took in and added, and how many its model takes; None without one.

    A model with the long window is known by its name (`[1m]`), or by having taken in more than the others can.
    """
    for entry in reversed(list(entries(path, max(0, path.stat().st_size - TAIL_BYTES)))):
        if entry.get("type") != "assistant" or entry.get("isApiErrorMessage") or entry.get("isSidechain"):
            continue
        message = dictionary(entry.get("message"))
        usage = dictionary(message.get("usage"))
        counts = [value for name, value in usage.items() if name in _CONTEXT_COUNTS and isinstance(value, int)]
        if counts:
            is_long = "[1m]" in str(message.get("model")) or sum(counts) > _CONTEXT_WINDOW
            return sum(counts), _LONG_CONTEXT_WINDOW if is_long else _CONTEXT_WINDOW
    return None


def has_answered_since(path: Path, since: int) -> bool:
    """Whether a transcript ends with an answer of the model from after a time (UTC milliseconds); an error is none."""
    found = path.stat()
    if found.st_mtime * 1000 <= since:
        return False
    return any(
        entry.get("type") == "assistant" and not entry.get("isApiErrorMessage") and written_at(entry) > since
        for entry in entries(path, max(0, found.st_size - TAIL_BYTES))
    )


def entries(path: Path, start: int) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the last line may be in the writing, the first be cut by `start`
                continue
            if isinstance(entry, dict):
                yield entry


def content_of(entry: Mapping[str, Any]) -> object:
    message = entry.get("message")
    return message.get("content") if isinstance(message, dict) else entry.get("content")


def written_at(entry: Mapping[str, Any]) -> int:
    """When an entry was written (UTC milliseconds); 0 when it does not say."""
    try:
        return int(datetime.fromisoformat(str(entry.get("timestamp"))).timestamp() * 1000)
    except ValueError:
        return 0


def texts_in(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                yield block["text"]
