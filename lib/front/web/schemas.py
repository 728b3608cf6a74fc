"""The shapes of what the API answers, in JSON Schema: what a client may rely on."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
YES: Schema = {"type": "boolean"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_WHOLE: Schema = {"type": ["integer", "null"]}
MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
ANYTHING: Schema = {"type": "object"}


def things(**properties: Schema) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def listed(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def maybe(of: Schema) -> Schema:
    return {"anyOf": [of, {"type": "null"}]}


ERROR = things(error=things(sentence=TEXT, hint=MAYBE_TEXT))

SPENT = things(usd=MAYBE_NUMBER, tokens=WHOLE, answers=WHOLE)
RECEIVED = things(message=WHOLE, sender=TEXT, text=TEXT, since=MAYBE_WHOLE)
AGENT = things(
    id=WHOLE,
    target=TEXT,
    role=TEXT,
    window=WHOLE,
    state={"enum": ["starting", "idle", "working", "asking", "limited", "gone"]},
    since=MAYBE_WHOLE,
    works_on=maybe(RECEIVED),
    context=maybe(things(tokens=WHOLE, most=WHOLE)),
    commit=maybe(things(id=TEXT, subject=TEXT, at=WHOLE, is_own=YES)),
    held=MAYBE_TEXT,
    held_until=MAYBE_WHOLE,
    waiting=WHOLE,
    reported=YES,
    candidate=MAYBE_TEXT,
    seen_at=MAYBE_WHOLE,
    worktree=TEXT,
    branch=TEXT,
)
ASKS = things(id=WHOLE, requester=TEXT, target=MAYBE_TEXT, what=TEXT, due_at=WHOLE)
TEAM = things(
    id=TEXT,
    session=TEXT,
    project=TEXT,
    title=TEXT,
    program=TEXT,
    status=TEXT,
    outcome=MAYBE_TEXT,
    delivery=TEXT,
    criteria=things(total=WHOLE, hold=WHOLE),
    created_at=WHOLE,
    updated_at=WHOLE,
    agents=listed(AGENT),
    need={"enum": ["person", "look", "time", "nothing", "over"]},
    why=TEXT,
    spent=SPENT,
    asks=listed(ASKS),
)
MESSAGE = things(
    id=WHOLE,
    agent_id=WHOLE,
    target=TEXT,
    sender=TEXT,
    kind=TEXT,
    priority={"enum": ["low", "normal", "high", "emergency"]},
    body=TEXT,
    status={"enum": ["queued", "pasted", "submitted", "acknowledged", "failed", "cancelled"]},
    reason=MAYBE_TEXT,
    queued_at=WHOLE,
    acknowledged_at=MAYBE_WHOLE,
)
FLOW = things(sender=TEXT, role=TEXT, messages=WHOLE, pending=WHOLE, failed=WHOLE, last_at=WHOLE, mean_ms=MAYBE_WHOLE)
CRITERION = things(id=TEXT, text=TEXT, state=TEXT, command=MAYBE_TEXT)
TOOK = things(count=WHOLE, median=MAYBE_NUMBER, longest=MAYBE_NUMBER)
LANE = things(role=TEXT, taker=TEXT, told=TOOK, answered=TOOK, not_arrived=WHOLE, unanswered=WHOLE)
CHECK_IN = things(id=WHOLE, target=TEXT, note=TEXT, due_at=WHOLE, status=TEXT)
BUDGET = things(sentence=TEXT, limit=NUMBER, used=NUMBER, unit=TEXT, status=TEXT)
EVENT = things(
    id=WHOLE, at=WHOLE, kind=TEXT, orchestration=MAYBE_TEXT, agent=MAYBE_WHOLE, message=MAYBE_WHOLE, sentence=MAYBE_TEXT
)
ENTRY = things(
    id=WHOLE,
    batch=WHOLE,
    spec=TEXT,
    project=TEXT,
    status=TEXT,
    state=TEXT,
    priority=WHOLE,
    attempts=WHOLE,
    added_at=WHOLE,
    reason=MAYBE_TEXT,
)
QUEUE = things(paused_at=MAYBE_WHOLE, entries=listed(ENTRY))
DIALOG = things(name=TEXT, text=TEXT, choices=listed(things(key=TEXT, text=TEXT)))
SCREEN = things(target=TEXT, text=TEXT, html=TEXT, dialog=maybe(DIALOG))
COSTS = things(by=TEXT, rows=listed(things(name=TEXT, usd=NUMBER)), total=things(usd=NUMBER), notes=listed(TEXT))
LIMITS = things(
    limits=listed(things(id=WHOLE, kind=TEXT, said=TEXT, resets_at=MAYBE_WHOLE, target=MAYBE_TEXT)),
    forecasts=listed(things(session=MAYBE_TEXT, sentence=TEXT, at=MAYBE_WHOLE)),
)
FLEET = things(
    link=things(is_connected=YES, sentence=TEXT),
    hosts=listed(
        things(name=TEXT, seen_at=WHOLE, is_seen=YES, standing=TEXT, agents=WHOLE, capacity=WHOLE, notes=listed(TEXT))
    ),
    waiting=listed(TEXT),
    accounts=listed(TEXT),
)
MACHINE = things(scheduler_pid=MAYBE_WHOLE, panes=MAYBE_WHOLE, tmux_trouble=MAYBE_TEXT, load=NUMBER, disk_free=WHOLE)
