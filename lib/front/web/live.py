"""The live view: one thread looks, and every open page hears of it by server-sent events.

What has happened are events of the store: they have its ids, and a page that comes back names the last one it has.
What is now are pieces (a team, the queue, the machine): each is told whole when it has changed, and a page that has
missed some gets the newest of each. So nothing is kept for a page, and a slow one costs the others nothing.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from lib import agents, history, host, orchestrations, store
from lib.errors import NotFound, OrchestratorError
from lib.front.web import pieces
from lib.front.web.answers import as_json
from lib.models import Event
from lib.records import dataclass
from lib.tmux import Tmux

#: How often the store is asked whether anything was written: 12 microseconds each time.
ASK_SECONDS = 0.1
#: Teams are looked at when something was written, but not more often than this; and when nothing was, this often.
LOOK_AT_MOST_SECONDS, LOOK_AT_LEAST_SECONDS = 0.5, 2.0
#: A page hears something at least this often, so that both sides notice when the other is gone.
PING_SECONDS = 15.0
#: How many pages may listen at once; each takes a thread of the server.
MOST_PAGES = 32
#: How many events are kept for pages that listen; what is older is read from the store.
_KEPT = 1000
_PAGE = 500
#: A page that has missed more is told to load everything anew.
_MOST_MISSED = 5000
_GONE_SECONDS = 1.0


@dataclass(frozen=True)
class _Frame:
    """What pages are told at once: `number` is an event's id, or the version of a piece."""

    number: int
    text: bytes


class Live:
    """What all pages hear."""

    def __init__(self, home: Path, tmux: Tmux) -> None:
        self._home, self._tmux = home, tmux
        self._news = threading.Condition()
        self._places = threading.BoundedSemaphore(MOST_PAGES)
        self._pages = 0
        self._audience = 0  # who listens between two times that nobody does
        self._is_over = False
        self._events: deque[_Frame] = deque(maxlen=_KEPT)
        self._from = 0  # the kept events are all that came after this one
        self._newest = 0
        self._pieces: dict[str, _Frame] = {}
        self._values: dict[str, bytes] = {}
        self._version = 0
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None

    @property
    def pages(self) -> int:
        """How many pages listen now."""
        return self._pages

    @property
    def trouble(self) -> str | None:
        """Why nobody looks, or nothing could be seen at the last look; None when all is well."""
        is_dead = self._thread is not None and not self._thread.is_alive() and not self._is_over
        return "the thread that looks has ended: start the dashboard again" if is_dead else self._trouble

    def start(self) -> None:
        """Begin to look; it costs nothing while no page listens."""
        self._thread = threading.Thread(target=self._watch, name="live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all streams, and the looking."""
        with self._news:
            self._is_over = True
            self._news.notify_all()

    # -- looking --

    def _watch(self) -> None:
        db, seen, looked_at, is_due = store.connect(self._home), -1, 0.0, True
        eyes = pieces.Eyes(self._tmux)
        while not self._wait_for_pages():
            try:
                version = int(db.execute("PRAGMA data_version").fetchone()[0])
                if version != seen:
                    self._read_events(db)
                    seen, is_due = version, True
                age = time.monotonic() - looked_at
                if not self._values or age >= (LOOK_AT_MOST_SECONDS if is_due else LOOK_AT_LEAST_SECONDS):
                    looked_at, is_due = time.monotonic(), False
                    audience = self._audience
                    self._put(eyes.look(db, self._home, now=host.now_ms()), audience)
                    self._trouble = None
            except (OrchestratorError, sqlite3.Error, OSError) as error:  # the next look may be a better one
                self._trouble = getattr(error, "sentence", None) or f"the teams cannot be looked at: {error}"
                looked_at, is_due = time.monotonic(), True

    def _wait_for_pages(self) -> bool:
        """Wait until it is time to ask again, and somebody listens. Returns whether it is over."""
        with self._news:
            if not self._pages:
                self._news.wait_for(lambda: self._pages or self._is_over)
            else:
                self._news.wait_for(lambda: self._is_over, ASK_SECONDS)
            return self._is_over

    def _read_events(self, db: sqlite3.Connection) -> None:
        newest = store.newest_event(db)
        if newest - self._newest > _KEPT:  # nobody has listened for a while: whoever missed these reads the store
            with self._news:
                self._events.clear()
                self._from = self._newest = newest
            return
        found = store.events(db, after=self._newest, limit=_KEPT)
        frames = [_happened(db, event) for event in found]
        with self._news:
            for frame in frames:
                if len(self._events) == _KEPT:
                    self._from = self._events[0].number
                self._events.append(frame)
                self._newest = frame.number
            self._news.notify_all()

    def _put(self, found: dict[str, object], audience: int) -> None:
        """Take the pieces of a look that was begun for `audience`; what is as it was is not told again."""
        values = {name: as_json(value) for name, value in found.items()}
        with self._news:
            if not self._pages or audience != self._audience:
                return  # all have gone since: whoever came after them waits for a look of their own
            values |= {name: b"null" for name in self._values if name not in values}
            changed = {name: value for name, value in values.items() if self._values.get(name) != value}
            if not changed:
                return
            self._version += 1
            for name, value in changed.items():
                text = b'event: changed\ndata: {"piece":%s,"value":%s}\n\n' % (as_json(name), value)
                self._pieces[name] = _Frame(self._version, text)
            self._values |= changed
            self._news.notify_all()

    # -- telling --

    def open(self) -> Callable[[], None] | None:
        """Take a place for a page, and return what gives it back; None when all are taken."""
        if not self._places.acquire(blocking=False):
            return None
        with self._news:
            self._pages += 1
            self._news.notify_all()
        return self._close

    def _close(self) -> None:
        with self._news:
            self._pages -= 1
            if not self._pages:  # nobody looks from now on: the next page waits for a look, and gets nothing stale
                self._audience += 1
                self._pieces.clear()
                self._values.clear()
        self._places.release()

    def tell(self, after: int | None, is_gone: Callable[[], bool]) -> Iterator[bytes]:
        """All that a page hears, from the event after `after` on (None: from now on), until it `is_gone`."""
        db = store.connect(self._home)
        try:
            yield b"retry: 2000\n\n"
            newest = store.newest_event(db)
            # An id from the future is of another store: this one was made anew.
            at = newest if after is None or after > newest else after
            version, heard_at = 0, time.monotonic()
            yield b"id: %d\nevent: here\ndata: {}\n\n" % at
            while not self._is_over and not is_gone():
                at, version, texts = self._news_since(db, at, version)
                if not texts and time.monotonic() - heard_at >= PING_SECONDS:
                    texts = [b": ping\n\n"]
                if texts:
                    heard_at = time.monotonic()
                    yield b"".join(texts)
        finally:
            db.close()

    def _news_since(self, db: sqlite3.Connection, at: int, version: int) -> tuple[int, int, list[bytes]]:
        with self._news:
            self._news.wait_for(lambda: self._is_over or self._newest > at or self._version > version, _GONE_SECONDS)
            is_kept, newest = at >= self._from, max(at, self._newest)
            frames = [frame for frame in self._events if frame.number > at] if is_kept and self._newest > at else []
            texts = [piece.text for piece in self._pieces.values() if piece.number > version]
            version = self._version
        if is_kept:
            return newest, version, [*(frame.text for frame in frames), *texts]
        missed, at = _missed(db, at)
        return at, version, [*missed, *texts]


def _missed(db: sqlite3.Connection, after: int) -> tuple[list[bytes], int]:
    """What a page has missed, from the store, a part at a time; or that it is too much, and where it is then."""
    newest = store.newest_event(db)
    if newest - after > _MOST_MISSED:
        return [b"id: %d\nevent: behind\ndata: {}\n\n" % newest], newest
    found = store.events(db, after=after, limit=_PAGE)
    return [_happened(db, event).text for event in found], found[-1].id if found else newest


def _happened(db: sqlite3.Connection, event: Event) -> _Frame:
    return _Frame(event.id, b"id: %d\nevent: happened\ndata: %s\n\n" % (event.id, as_json(told(db, event))))


def told(db: sqlite3.Connection, event: Event) -> dict[str, object]:
    """An event as pages get it: whom it is about, and what a person reads of it, if it is of any use to one."""
    return {
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "orchestration": event.orchestration_id,
        "session": _session(db, event),
        "agent": event.agent_id,
        "role": _role(db, event),
        "message": event.message_id,
        "sentence": history.sentence(db, event, longest=400),
    }


def _session(db: sqlite3.Connection, event: Event) -> str | None:
    try:
        return orchestrations.get(db, event.orchestration_id).session if event.orchestration_id else None
    except NotFound:
        return None


def _role(db: sqlite3.Connection, event: Event) -> str | None:
    try:
        return agents.get(db, event.agent_id).role if event.agent_id is not None else None
    except NotFound:
        return None
