"""A scripted Anthropic Messages API on 127.0.0.1: all that is simulated when the real CLI is tested."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import TracebackType
from typing import Any, Self

from lib.records import dataclass

#: The client itself gives up on requests above 32 MB.
LARGEST_BODY = 32 * 1024 * 1024
#: No answer streams longer than this, whatever its script says.
LONGEST_STREAM_SECONDS = 600.0
REMINDER = "<system-reminder>"


@dataclass(frozen=True)
class Failure:
    """An API error instead of an answer."""

    status: int
    type: str
    message: str


@dataclass(frozen=True)
class Turn:
    """One answer of the model: what it says, which tools it asks for, and how fast."""

    text: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()
    wait_seconds: float = 0.0
    stream_seconds: float = 0.0
    forever: bool = False
    failure: Failure | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    refuses: bool = False


def say(text: str, *, headers: Mapping[str, str] | None = None) -> Turn:
    return Turn(text=text, headers=headers or {})


def tool(name: str, arguments: dict[str, Any]) -> Turn:
    return Turn(tools=((name, arguments),))


def say_and_tool(text: str, name: str, arguments: dict[str, Any]) -> Turn:
    return Turn(text=text, tools=((name, arguments),))


def refuse(text: str = "") -> Turn:
    """The model will not answer this."""
    return Turn(text=text, refuses=True)


def hang(seconds: float, then: str = "ok") -> Turn:
    """Not one byte for `seconds`, then an answer."""
    return Turn(text=then, wait_seconds=seconds)


def stream_slowly(text: str, seconds: float) -> Turn:
    """The words of `text`, spread over `seconds`."""
    return Turn(text=text, stream_seconds=seconds)


def say_forever(text: str = "still thinking. ") -> Turn:
    """The same text again and again, until the client goes away or the server closes."""
    return Turn(text=text, forever=True)


def fail(status: int, type: str, message: str, headers: Mapping[str, str] | None = None) -> Turn:
    """An API error. The client retries 429, 5xx and 529 up to ten times; each retry uses a turn.

    `headers={"x-should-retry": "false"}` makes the first one final (measured with 2.1.330).
    """
    return Turn(failure=Failure(status, type, message), headers=headers or {})


def reach_limit(claim: str, resets_at: float) -> Turn:
    """What a subscriber gets whose limit is reached: `claim` is five_hour or seven_day, the time in epoch seconds.

    The client does not try again by itself (measured with 2.1.330).
    """
    unified, short = "anthropic-ratelimit-unified", {"five_hour": "5h", "seven_day": "7d"}[claim]
    headers = {
        f"{unified}-status": "rejected",
        f"{unified}-reset": str(int(resets_at)),
        f"{unified}-representative-claim": claim,
        f"{unified}-{short}-utilization": "1.0",
        f"{unified}-{short}-reset": str(int(resets_at)),
    }
    return fail(429, "rate_limit_error", "This request would exceed your account's rate limit.", headers)


@dataclass(frozen=True)
class Billed:
    """What a whole answer has cost its account."""

    request: Request
    model: str
    usage: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One request as it came in, and what a script wants to know of it."""

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def conversation(self) -> str:
        """Claude's session id; the same for a conversation, its helpers and its resumed self."""
        return self.headers.get("x-claude-code-session-id", "")

    @property
    def is_turn(self) -> bool:
        """Whether this is a conversation's own request, and not a side call of the client.

        Measured with 2.1.330: a conversation always offers tools, and its title maker, which asks
        for JSON of a given shape, never does. `claude -p --tools ""` offers none and asks for no shape.
        """
        if self.method != "POST" or self.path.partition("?")[0] != "/v1/messages":
            return False
        if not self.conversation:  # another client of the API than Claude Code
            return True
        return bool(self.body.get("tools")) or "format" not in (self.body.get("output_config") or {})

    @property
    def system(self) -> str:
        """The system prompt, with the system messages that the client puts between the others."""
        inline = [m.get("content") for m in self._messages if m.get("role") == "system"]
        return "\n".join(text for part in (self.body.get("system"), *inline) for text in _texts(part))

    @property
    def said(self) -> tuple[str, ...]:
        """What the user said since the model's last answer; empty when only tool results came back."""
        return tuple(_own_texts(self._since_last_answer))

    @property
    def prompt(self) -> str:
        """The last thing that the user said in this conversation, before tool results if need be."""
        texts = list(_own_texts(self._messages))
        return texts[-1] if texts else ""

    @property
    def tool_results(self) -> tuple[str, ...]:
        """The results that came back since the model's last answer."""
        blocks = (block for m in self._since_last_answer for block in _blocks(m.get("content")))
        results = (block.get("content") for block in blocks if block.get("type") == "tool_result")
        return tuple("\n".join(_texts(result)) for result in results)

    @property
    def _messages(self) -> list[dict[str, Any]]:
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) else []

    @property
    def _since_last_answer(self) -> list[dict[str, Any]]:
        messages = self._messages
        answered = [n for n, m in enumerate(messages) if m.get("role") == "assistant"]
        return messages[answered[-1] + 1 :] if answered else messages


Match = Callable[[Request], bool] | str


def _blocks(content: object) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list):
        yield from (block for block in content if isinstance(block, dict))


def _texts(content: object) -> Iterator[str]:
    return (block["text"] for block in _blocks(content) if block.get("type") == "text")


def _own_texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The user's texts, without the reminders that the client adds."""
    for message in messages:
        if message.get("role") == "user":
            yield from (t for t in _texts(message.get("content")) if not t.startswith(REMINDER))


def _matches(match: Match, request: Request) -> bool:
    """A string is looked for in the last thing that the user said.

    Not in the system prompt: that is 40 KB of the client's own English, which holds "retry" and "slow".
    """
    return match in request.prompt if isinstance(match, str) else match(request)


def briefed(text: str) -> Match:
    """The conversations whose system prompt holds `text`: how a role's agent is told from the others."""
    return lambda request: text in request.system


@dataclass
class _Play:
    match: Match
    turns: deque[Turn]
    repeat_last: bool

    def next(self) -> Turn | None:
        if self.repeat_last and len(self.turns) == 1:
            return self.turns[0]
        return self.turns.popleft() if self.turns else None


class ModelServer:
    """Answers what the script says. A context manager; `url` is the ANTHROPIC_BASE_URL.

    A request takes the next turn of the first play that matches it and has turns left, else "ok".
    Side calls of the client (titles, token counts) get a harmless answer and use no turn.
    """

    def __init__(self, *, keep: int = 1000) -> None:
        self._plays: list[_Play] = []
        self._seen: deque[Request] = deque(maxlen=keep)
        self._billed: list[Billed] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._ids = count(1)
        self._http = _Server(("127.0.0.1", 0), _Answer)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    def on(self, match: Match, *turns: Turn, repeat_last: bool = False) -> None:
        """Play `turns` for the requests that match; with `repeat_last` the last one has no end."""
        with self._changed:
            self._plays.append(_Play(match, deque(turns), repeat_last))

    @property
    def requests(self) -> list[Request]:
        """Every request, oldest first; the oldest are dropped above the limit `keep`."""
        with self._changed:
            return list(self._seen)

    def turns(self, match: Match = "") -> list[Request]:
        """The requests that were turns of a conversation, without the client's side calls."""
        return [r for r in self.requests if r.is_turn and _matches(match, r)]

    def prompts(self, match: Match = "") -> list[str]:
        """What the users said, as the model saw it: once each, though the client may have retried."""
        said: dict[tuple[str, int, tuple[str, ...]], None] = {}
        for request in self.turns(match):
            said[(request.conversation, len(request.body["messages"]), request.said)] = None
        return [text for _, _, texts in said for text in texts]

    def wait_for(self, match: Match, *, times: int = 1, timeout_seconds: float = 20.0) -> list[Request]:
        """Wait until `times` turns match, and give them. Raises TimeoutError with what was said instead."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while len(found := self.turns(match)) < times:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{len(found)} of {times} turns came; the prompts: {self.prompts()}")
        return found

    @property
    def billed(self) -> list[Billed]:
        """What the turns of conversations have used; an answer that failed or was not taken costs nothing here."""
        with self._changed:
            return [one for one in self._billed if one.request.is_turn]

    def bill(self, request: Request, usage: Mapping[str, Any]) -> None:
        with self._changed:
            self._billed.append(Billed(request, str(request.body.get("model")), usage))

    def record(self, request: Request) -> None:
        with self._changed:
            self._seen.append(request)
            self._changed.notify_all()

    def turn_for(self, request: Request) -> Turn:
        if not request.is_turn:
            return say('{"title": "Rehearsal"}')
        with self._changed:
            for play in self._plays:
                if _matches(play.match, request) and (turn := play.next()) is not None:
                    return turn
        return say("ok")

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_rehearsal_{next(self._ids):08d}"

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the server."""
        self._closing.wait(seconds)

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    model: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle of an answer is part of the play."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._other({})

    def do_GET(self) -> None:
        self._other({})

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if size > LARGEST_BODY:
            self.close_connection = True
            self._json(413, _error("request_too_large", "larger than 32 MB"))
            return
        try:
            body = json.loads(self.rfile.read(size) or b"{}")
        except ValueError:
            self._json(400, _error("invalid_request_error", "the body is not JSON"))
            return
        match self.path.partition("?")[0]:
            case "/v1/messages":
                self._message(self._record(body))
            case "/v1/messages/count_tokens":
                self._record(body)
                self._json(200, {"input_tokens": size // 4 + 1})
            case _:
                self._other(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in `ModelServer.requests`, not in a log."""

    def _record(self, body: dict[str, Any]) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(time.time(), self.command, self.path, headers, body)
        self.server.model.record(request)
        return request

    def _other(self, body: dict[str, Any]) -> None:
        self._record(body)
        self._json(404, _error("not_found_error", f"no {self.path} here"))

    def _message(self, request: Request) -> None:
        turn = self.server.model.turn_for(request)
        self.server.model.pause(turn.wait_seconds)
        if turn.failure is not None:
            failure = turn.failure
            self._json(failure.status, _error(failure.type, failure.message), turn.headers)
        elif request.body.get("stream"):
            self._stream(request, turn)
        else:
            content = [{"type": "text", "text": turn.text}] if turn.text else []
            content += [self._tool_use(name, arguments) for name, arguments in turn.tools]
            message = self._envelope(request, turn) | {"content": content, "stop_reason": _stop_reason(turn)}
            self._json(200, message, turn.headers)
            self.server.model.bill(request, message["usage"])

    def _stream(self, request: Request, turn: Turn) -> None:
        self.send_response(200)
        for name, value in {**turn.headers, "content-type": "text/event-stream"}.items():
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        envelope = self._envelope(request, turn)
        self._event("message_start", message=envelope)
        self._event("ping")
        if turn.text:
            self._block(0, {"type": "text", "text": ""}, self._text_deltas(turn))
        for index, (name, arguments) in enumerate(turn.tools, start=1 if turn.text else 0):
            delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
            self._block(index, self._tool_use(name, {}), iter([delta]))
        stop = {"stop_reason": _stop_reason(turn), "stop_sequence": None}
        usage = {"output_tokens": len(turn.text) // 4 + 1, **turn.usage}
        self._event("message_delta", delta=stop, usage=usage)
        self._event("message_stop")
        self.server.model.bill(request, envelope["usage"] | usage)

    def _text_deltas(self, turn: Turn) -> Iterator[dict[str, str]]:
        model = self.server.model
        end = time.monotonic() + LONGEST_STREAM_SECONDS
        while turn.forever and not model.is_closing and time.monotonic() < end:
            yield {"type": "text_delta", "text": turn.text}
            model.pause(0.1)
        pieces = turn.text.splitlines(keepends=True) if not turn.stream_seconds else _words(turn.text)
        for piece in [] if turn.forever else pieces:
            yield {"type": "text_delta", "text": piece}
            model.pause(turn.stream_seconds / len(pieces))

    def _block(self, index: int, block: dict[str, Any], deltas: Iterator[dict[str, str]]) -> None:
        self._event("content_block_start", index=index, content_block=block)
        for delta in deltas:
            self._event("content_block_delta", index=index, delta=delta)
        self._event("content_block_stop", index=index)

    def _event(self, type: str, **fields: object) -> None:
        data = json.dumps({"type": type, **fields})
        self.wfile.write(f"event: {type}\ndata: {data}\n\n".encode())
        self.wfile.flush()

    def _envelope(self, request: Request, turn: Turn) -> dict[str, Any]:
        return {
            "id": self.server.model.new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": request.body.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": int(request.headers.get("content-length") or 0) // 4,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 1,
                **turn.usage,
            },
        }

    def _tool_use(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"type": "tool_use", "id": self.server.model.new_id("toolu"), "name": name, "input": arguments}

    def _json(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        fields = {"content-type": "application/json", "content-length": str(len(data))}
        for name, value in {**fields, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _stop_reason(turn: Turn) -> str:
    if turn.refuses:
        return "refusal"
    return "tool_use" if turn.tools else "end_turn"


def _error(type: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": type, "message": message}}
