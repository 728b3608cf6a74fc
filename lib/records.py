"""`dataclass` of the standard library, without the source text that it writes and compiles for every class.

A door loads some hundred of these classes at each start, and spent half of it on that text (docs/decisions/records.md).
Here the methods are written once and read a class's fields when they are called. What the standard library keeps of a
class is kept, so its `fields`, `replace` and `asdict`, and `match`, work as ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

Class = TypeVar("Class", bound=type)

if TYPE_CHECKING:  # to whoever reads or checks the code, it is the one of the standard library
    from dataclasses import dataclass
else:

    def dataclass(cls: Class | None = None, /, *, frozen: bool = False) -> Class | Callable[[Class], Class]:
        """Make a class of its annotations, as the standard library's `dataclass` does, but start faster.

        All fields are parameters of `__init__`, by place or by name; `__post_init__` is called after it. A method that
        the class has itself stays. With `frozen` its objects have a hash, and setting or deleting a field raises
        `FrozenInstanceError`.
        """
        return _made(cls, frozen) if cls is not None else lambda cls: _made(cls, frozen)


def _made(cls: Class, frozen: bool) -> Class:
    own = vars(cls)
    methods: dict[str, Callable[..., object] | None] = {
        "__init__": _init,
        "__repr__": _repr,
        "__eq__": _eq,
        "__hash__": None,
    }
    if frozen:
        methods |= {"__hash__": _hash, "__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
    for name, method in methods.items():
        if name not in own or (name == "__hash__" and own[name] is None):
            setattr(cls, name, method)
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    return cls


def _init(self: Any, *values: object, **named: object) -> None:
    fields: dict[str, Any] = self.__dataclass_fields__
    names: tuple[str, ...] = self.__match_args__
    held = dict(zip(names, values, strict=False))
    if len(values) > len(names) or named.keys() - names or named.keys() & held:
        raise TypeError(_unfit(self, values, named))
    held |= named
    if len(held) < len(names):
        for name in names:
            if name not in held:
                held[name] = _default(self, fields[name], values, named)
    self.__dict__.update(held)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _default(self: object, field: Any, values: tuple[object, ...], named: dict[str, object]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(_unfit(self, values, named))


def _unfit(self: Any, values: tuple[object, ...], named: dict[str, object]) -> str:
    """What is wrong with the values that a class was called with."""
    name, names = type(self).__qualname__, self.__match_args__
    if len(values) > len(names):
        return f"{name}() takes {len(names)} values, {len(values)} were given"
    if unknown := [one for one in named if one not in names]:
        return f"{name}() has no field {', '.join(unknown)}"
    if twice := [one for one in names[: len(values)] if one in named]:
        return f"{name}() got {', '.join(twice)} twice"
    missing = [
        one.name
        for one in dataclasses.fields(self)[len(values) :]
        if one.name not in named and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    return f"{name}() needs {', '.join(missing)}"


def _values(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, name) for name in self.__match_args__])


def _repr(self: Any) -> str:
    shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self) if one.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _refuse_to_set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
