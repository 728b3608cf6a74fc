"""Transcripts as Claude Code 2.1.330 writes them, as far as the ledger reads them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from lib import agents
from lib.judgement import framing
from lib.models import Agent, Message, Usage

MODEL = "claude-opus-5-5"
#: What an answer uses unless a test says otherwise: 1,000 at 4, 100 at 20, 10,000 at 0.20 dollars for a million.
USED = Usage(input=1_000, output=100, cache_read=10_000)
USED_USD = 0.008

_ids = count(1)


def stamp(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usage_of(used: Usage) -> dict[str, Any]:
    """Counts in Claude Code's words."""
    return {
        "input_tokens": used.input,
        "cache_creation_input_tokens": used.cache_write_5m + used.cache_write_1h,
        "cache_read_input_tokens": used.cache_read,
        "output_tokens": used.output,
        "output_tokens_details": {"thinking_tokens": used.thinking},
        "server_tool_use": {"web_search_requests": used.web_searches, "web_fetch_requests": 0},
        "cache_creation": {
            "ephemeral_1h_input_tokens": used.cache_write_1h,
            "ephemeral_5m_input_tokens": used.cache_write_5m,
        },
        "inference_geo": "",
        "speed": "standard",
    }


def answer(
    used: Usage = USED, *, at: int, id: str | None = None, model: str = MODEL, is_helper: bool = False, **usage: object
) -> dict[str, Any]:
    """One line of an answer; `usage` are further fields of what it has used."""
    return {
        "parentUuid": None,
        "isSidechain": is_helper,
        "message": {
            "id": id or f"msg_{next(_ids):08d}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": "done"}],
            "usage": usage_of(used) | usage,
        },
        "type": "assistant",
        "timestamp": stamp(at),
    }


def prompt(text: str, *, at: int, id: str = "", is_helper: bool = False, **more: object) -> dict[str, Any]:
    """The line of a prompt; `more` are further fields."""
    message = {"role": "user", "content": text}
    line = {"parentUuid": None, "isSidechain": is_helper, "type": "user", "message": message, "timestamp": stamp(at)}
    return line | {"promptId": id or f"prompt-{next(_ids)}"} | more


def told(message: Message, *, at: int, id: str = "") -> dict[str, Any]:
    """The prompt that a message of ours is."""
    return prompt(framing.frame(message.id, message.sender, message.body), at=at, id=id)


@dataclass
class Transcript:
    """The file of one conversation, which grows."""

    path: Path

    def write(self, *lines: Mapping[str, Any] | bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for line in lines:
                file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def helper(self, name: str, *folders: str) -> Transcript:
        """The file of a subagent that works for this conversation."""
        return Transcript(self.path.with_suffix("").joinpath("subagents", *folders, f"agent-{name}.jsonl"))


def transcript_of(db: sqlite3.Connection, agent: Agent, config_dir: Path) -> tuple[Agent, Transcript]:
    """Give an agent a configuration folder, and the transcript of its conversation there."""
    db.execute("UPDATE agents SET config_dir = ? WHERE id = ?", (str(config_dir), agent.id))
    path = config_dir / "projects" / f"-{agent.role}" / f"{agent.conversation_id}.jsonl"
    return agents.get(db, agent.id), Transcript(path)
