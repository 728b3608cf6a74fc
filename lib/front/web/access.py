"""Who may use the dashboard: its token, the sessions that this opens, and the lock-out after wrong ones."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from itsdangerous import BadSignature, TimestampSigner

from lib.errors import OrchestratorError
from lib.records import dataclass

#: A session ends so long after it was opened.
SESSION_SECONDS = 30 * 24 * 3600
#: After so many wrong tokens within the time, nobody is heard from that address; after so many in all, nobody at all.
MOST_WRONG, MOST_WRONG_IN_ALL = 5, 50
LOCKED_SECONDS = 15 * 60.0


@dataclass(frozen=True)
class Keys:
    """What the state home keeps for the dashboard. Of the token there is only the hash; `secret` signs sessions."""

    secret: str
    token_hash: str | None = None

    def opens(self, token: str) -> bool:
        """Whether this is the token."""
        return self.token_hash is not None and hmac.compare_digest(_hash(token), self.token_hash)


def _hash(token: str) -> str:
    # 256 random bits cannot be guessed from their hash: nothing slower is needed.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _path(home: Path) -> Path:
    return home / "dashboard.json"


def keys(home: Path) -> Keys:
    """The keys of a state home; without a token until one is made. Raises `OrchestratorError` for a damaged file."""
    path = _path(home)
    try:
        return Keys(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return _keep(path, Keys(secrets.token_hex(32)))
    except (ValueError, TypeError):
        hint = f"remove it: rm {path}; then everybody logs in anew"
        raise OrchestratorError(f"{path} does not hold the dashboard's keys", hint=hint) from None


class Keyring:
    """The keys as they are now: a new token ends what the old one has opened, in a server that runs too."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._keys = keys(home)
        self._read_at = self._mark()

    @property
    def keys(self) -> Keys:
        """The keys of the state home; read again when the file is another one."""
        if (mark := self._mark()) != self._read_at:
            self._keys, self._read_at = keys(self._home), mark
        return self._keys

    @property
    def sessions(self) -> BrowserSessions:
        """The sessions that these keys have signed."""
        return BrowserSessions(self.keys.secret)

    def _mark(self) -> tuple[int, int] | None:
        try:
            found = _path(self._home).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


def new_token(home: Path) -> str:
    """Make a token, which is told here and never again. All sessions end: the key that signs them is a new one."""
    token = secrets.token_urlsafe(32)
    _keep(_path(home), Keys(secrets.token_hex(32), _hash(token)))
    return token


def _keep(path: Path, made: Keys) -> Keys:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.touch(mode=0o600, exist_ok=False)  # before anything secret stands in it
        draft.write_text(json.dumps(asdict(made)), encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return made


# -- sessions of browsers --


@dataclass(frozen=True)
class BrowserSession:
    """One browser. `has_token`: it has shown the token. `csrf` is what its changes carry, and no other site knows."""

    has_token: bool
    csrf: str


class BrowserSessions:
    """Sessions as signed cookies: nothing is kept here, so they outlive the server."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._signer = TimestampSigner(secret, salt="session")

    def begin(self, *, has_token: bool) -> str:
        """The cookie of a new session."""
        return self._signer.sign(f"{'member' if has_token else 'visitor'}:{secrets.token_hex(16)}").decode()

    def read(self, cookie: str) -> BrowserSession | None:
        """The session of a cookie; None when it is not one of ours, or too old."""
        try:
            name = self._signer.unsign(cookie, max_age=SESSION_SECONDS).decode()
        except BadSignature:
            return None
        csrf = hmac.new(self._secret, f"csrf:{name}".encode(), hashlib.sha256).hexdigest()
        return BrowserSession(name.startswith("member:"), csrf)


# -- wrong tokens --


class Lockout:
    """Counts wrong tokens by the address that they came from, and in all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST_WRONG))
        self._all: deque[float] = deque(maxlen=MOST_WRONG_IN_ALL)

    def seconds(self, address: str) -> float:
        """How long nobody is heard from an address yet; 0 when it may try."""
        with self._lock:
            self._forget()
            own = self._wrong.get(address, deque())
            return max(self._left(own, MOST_WRONG), self._left(self._all, MOST_WRONG_IN_ALL))

    def note(self, address: str) -> None:
        """A wrong token has come from an address."""
        with self._lock:
            self._wrong[address].append(self._clock())
            self._all.append(self._clock())

    def _left(self, times: deque[float], most: int) -> float:
        return max(0.0, times[-1] + LOCKED_SECONDS - self._clock()) if len(times) >= most else 0.0

    def _forget(self) -> None:
        since = self._clock() - LOCKED_SECONDS
        for address in [name for name, times in self._wrong.items() if times[-1] < since]:
            del self._wrong[address]
        while self._all and self._all[0] < since:
            self._all.popleft()
