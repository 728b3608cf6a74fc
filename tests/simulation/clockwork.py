"""An event loop whose time is virtual: whoever waits is next, and what happens in it is the same each time."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any


class _Jumping:
    """A selector that waits for nothing: the time of the next timer is now."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self._real = loop, selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing of this world is ready by itself; the time goes on to the next timer instead."""
        if timeout is None:
            raise RuntimeError("everybody waits for something that never comes")
        self._loop.now += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is that of its birth."""

    _numbers = itertools.count()

    def __init__(self, *given: Any, **named: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(*given, **named)

    def __hash__(self) -> int:
        return self._number


class Loop(asyncio.SelectorEventLoop):
    """`now` is its time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jumping(self))  # type: ignore[arg-type]
        _Task._numbers = itertools.count()
        self.set_task_factory(_made)  # type: ignore[arg-type]  # typeshed has the newest Python's

    def time(self) -> float:
        return self.now


def _made(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **named: Any) -> _Task:
    return _Task(work, loop=loop, **named)
