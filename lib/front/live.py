"""A picture in a terminal that is looked at for hours: drawn again and again, on a screen of its own, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from lib.front.cli import Output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Seen = TypeVar("Seen")


def is_seen(output: Output) -> bool:
    """Whether a person sees what is printed."""
    return sys.stdout.isatty() and not output.json


def draw(picture: Callable[[int], RenderableType]) -> None:
    """Print a picture once; it is told how many columns there are."""
    from rich.console import Console  # noqa: PLC0415 - 200 ms that only a person at a terminal pays

    console = Console(highlight=False)
    console.print(picture(console.width))


def watch(look: Callable[[], Seen], picture: Callable[[Seen, int], RenderableType], *, seconds: float) -> None:
    """Look every so many seconds and draw what is seen. A terminal of another size only draws it again."""
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.live import Live  # noqa: PLC0415 - as above

    # Whatever ends it, the terminal gets its screen back.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), _resizes() as resized:  # Ctrl-C is how one leaves
        seen = look()
        with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
            while True:
                live.update(picture(seen, live.console.width), refresh=True)
                if not resized(seconds):
                    seen = look()


def how(seconds: float) -> str:
    """How a picture is kept up to date, as its head says it."""
    return f"every {seconds:g} s, Ctrl-C leaves"


def head(title: str, at: int, *, warning: str = "", how: str = "") -> RenderableType:
    """The first line of a picture: its title, and at the right what is wrong, how it is shown, and its time."""
    from rich.text import Text  # noqa: PLC0415 - as above

    clock = datetime.fromtimestamp(at / 1000).strftime("%H:%M:%S")
    parts = [(warning, "yellow"), (how, "bright_black"), (clock, "bright_black")]
    right = Text("   ").join(Text(*part) for part in parts if part[0])
    return spread(Text(title, style="bold"), right)


def spread(left: Text, right: Text) -> RenderableType:
    """Two texts at the two ends of a line."""
    from rich.table import Table  # noqa: PLC0415 - as above

    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


@contextlib.contextmanager
def _resizes() -> Iterator[Callable[[float], bool]]:
    """A wait of so many seconds that ends early, with True, when the terminal gets another size."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # The handler may run in the middle of anything: it only leaves a byte.
    signal.signal(signal.SIGWINCH, lambda *_: _put_byte(writing))

    def wait(seconds: float) -> bool:
        if not select.select([reading], [], [], seconds)[0]:
            return False
        os.read(reading, 4096)
        return True

    try:
        yield wait
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        os.close(reading)
        os.close(writing)


def _put_byte(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it is full: that is news enough
        os.write(pipe, b"!")
