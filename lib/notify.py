"""Addresses outside of this machine: notices by the library Apprise, and the dead-man ping.

An address holds passwords and tokens, for some services even where others have the host. So nothing that is
answered here, printed or logged holds a part of one: it is named by its place in the list and its scheme.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from urllib.parse import unquote_plus

from lib.records import dataclass

#: How long one address may take: Apprise limits a connection and each read, not the whole.
NOTICE_SECONDS = 30.0
PING_SECONDS = 10.0
_READ_SECONDS = 20.0

_APP = "Tmux Orchestrator"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,19})://")
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Address:
    """One line of `notify.urls`. `position` counts from 1."""

    position: int
    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """What a person may read: `2 (slack)`."""
        scheme = _SCHEME.match(self.url)
        return f"{self.position} ({scheme[1].lower() if scheme else 'no scheme'})"

    @property
    def key(self) -> str:
        """Names the same address in every process, and tells nothing of it."""
        return hashlib.blake2b(self.url.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Letter:
    """What one address is to get."""

    address: Address
    title: str
    body: str


@dataclass(frozen=True)
class Answer:
    """What became of a letter; `reason` says why the address did not take it, None when it did."""

    address: Address
    reason: str | None


def addresses(urls: Sequence[str]) -> list[Address]:
    """The addresses of the configuration; one that stands there twice is one."""
    found = {url: Address(position, url) for position, url in reversed(list(enumerate(urls, start=1)))}
    return sorted(found.values(), key=lambda address: address.position)


def send(letters: Sequence[Letter], *, limit_seconds: float = NOTICE_SECONDS) -> Iterator[Answer]:
    """Send letters side by side, and answer for each as soon as that is known.

    One that takes longer than `limit_seconds` counts as refused, and may yet arrive.
    """
    calls = [functools.partial(_send, letter) for letter in letters]
    for number, reason in _side_by_side(calls, limit_seconds):
        yield Answer(letters[number].address, reason)


def ping(url: str, *, limit_seconds: float = PING_SECONDS) -> str | None:
    """Call the address of a dead man's switch. Returns None when it answers well, else why not."""
    ((_, reason),) = _side_by_side([functools.partial(_ping, url, limit_seconds)], limit_seconds)
    return reason


def _side_by_side(calls: Sequence[Callable[[], str | None]], limit_seconds: float) -> Iterator[tuple[int, str | None]]:
    """What calls return that may hang, by their place; in threads that nobody waits for at the end of the process."""
    returned: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()

    def run(number: int) -> None:
        try:
            said = calls[number]()
        except Exception as error:  # noqa: BLE001 - a service's code raised: its words may hold the address
            said = f"it failed with {type(error).__name__}"
        returned.put((number, said))

    left = set(range(len(calls)))
    for number in left:
        threading.Thread(target=run, args=(number,), daemon=True).start()
    end = time.monotonic() + limit_seconds
    while left:
        try:
            number, said = returned.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        left.discard(number)
        yield number, said
    for number in sorted(left):
        yield number, _no_answer(limit_seconds)


# -- Apprise --


def _send(letter: Letter) -> str | None:
    url = letter.address.url
    with _listen() as said:
        import apprise  # noqa: PLC0415 - 0.2 s and 25 MB, and only who sends needs it
        from apprise.common import OverflowMode, PersistentStoreMode  # noqa: PLC0415 - as above

        asset = apprise.AppriseAsset(
            app_id=_APP,
            app_desc=_APP,
            app_url="",
            # Otherwise the recipient's program fetches a picture from the site of Apprise.
            image_url_mask="",
            image_url_logo="",
            storage_mode=PersistentStoreMode.MEMORY,
            # Without a limit of its own it works in this thread: the end of a process waits for those of Apprise.
            service_timeout=0,
        )
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            return _reason("Apprise does not take this address", said, url)
        if "overflow=" not in url:
            service.overflow_mode = OverflowMode.SPLIT
        if "rto=" not in url:  # Apprise gives up after 4 s, and what a slow server took would go again
            service.socket_read_timeout = _READ_SECONDS
        one = apprise.Apprise(services=service, asset=asset)
        # As text: what a service would take for markup or a template stays what it is.
        taken = one.notify(body=letter.body, title=letter.title, body_format=apprise.NotifyFormat.TEXT)
        return None if taken else _reason("", said, url)


class _Ear(logging.Handler):
    """Keeps what one thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[tuple[int, str]] = []
        self._of = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._of:
            self.said.append((record.levelno, record.getMessage()))


@contextlib.contextmanager
def _listen() -> Iterator[list[tuple[int, str]]]:
    """What Apprise logs in this thread meanwhile, with its levels; none of it goes anywhere else."""
    log = logging.getLogger("apprise")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    ear = _Ear()
    log.addHandler(ear)
    try:
        yield ear.said
    finally:
        log.removeHandler(ear)


# -- reasons --

#: What an exception's text may tell: the system's own words, a server's code. The rest of it may hold the address.
_FACTS = (
    re.compile(r"\[Errno -?\d+\] ([A-Za-z][\w ,-]*)"),
    re.compile(r"(CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER)"),
    re.compile(r"\b([Tt]imed out)\b"),
    re.compile(r"\((\d{3}), b?['\"]([^'\"]*)"),
)
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://\S*")


def _reason(general: str, said: Sequence[tuple[int, str]], url: str) -> str:
    """Why an address did not take a letter, in Apprise's words and without a part of the address."""
    words = [message for level, message in said if level >= logging.WARNING and not _URL.search(message)]
    for pattern in _FACTS:
        found = next((match for _, message in said if (match := pattern.search(message))), None)
        if found:
            words.append(" ".join(filter(None, found.groups())))
            break
    theirs = "; ".join(dict.fromkeys(" ".join(word.split()).rstrip(".") for word in words))
    text = "; ".join(filter(None, [general, without_secrets(theirs, url)]))
    return text[:_LONGEST_REASON] or "Apprise does not say why"


def without_secrets(text: str, url: str) -> str:
    """A text with three asterisks for every part of an address."""
    for part in sorted(_parts(url), key=len, reverse=True):
        # A short user or password is found as a word only: it would be a part of many others.
        edge = "" if len(part) >= 4 else r"\b"
        text = re.sub(rf"{edge}{re.escape(part)}{edge}", "***", text, flags=re.IGNORECASE)
    return text


def _parts(url: str) -> set[str]:
    """What of an address may be a secret: all of it but the scheme, whole and cut at every sign."""
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url
    user_part = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    named = {url, rest, user_part, *user_part.split(":", 1)}
    cut = {piece for piece in re.split(r"[/?&#=@:,;]+", rest) if len(piece) >= 4}
    parts = named | cut
    return {one for part in parts for one in (part, unquote_plus(part)) if one.strip()}


# -- the ping --


def _ping(url: str, limit_seconds: float) -> str | None:
    import http.client  # noqa: PLC0415 - with urllib 60 ms, and only who pings needs it
    import urllib.error  # noqa: PLC0415 - as above
    import urllib.request  # noqa: PLC0415 - as above

    request = urllib.request.Request(url, headers={"User-Agent": _APP.replace(" ", "-")})
    try:
        with urllib.request.urlopen(request, timeout=limit_seconds):
            return None
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except TimeoutError:
        return _no_answer(limit_seconds)
    except urllib.error.URLError as error:
        return _no_answer(limit_seconds) if isinstance(error.reason, TimeoutError) else _in_words(error.reason, url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _in_words(error, url)


def _no_answer(limit_seconds: float) -> str:
    return f"no answer within {limit_seconds:g} s"


def _in_words(error: object, url: str) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return without_secrets(said, url)[:_LONGEST_REASON]
