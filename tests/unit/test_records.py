"""The records' `dataclass` beside the standard library's: whatever one does, the other does."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from typing import Any, ClassVar

import pytest

from lib import records


@records.dataclass(frozen=True)
class Point:
    """A class that pickle can find."""

    x: int
    y: int = 2


def made(decorate: Callable[..., Any], *, frozen: bool) -> Any:
    @decorate(frozen=frozen)
    class Mail:
        """What was sent."""

        KINDS: ClassVar[tuple[str, ...]] = ("letter", "card")
        to: str
        text: str = ""
        marks: list[str] = field(default_factory=list)
        secret: str = field(default="s", repr=False)

        @property
        def is_long(self) -> bool:
            return len(self.text) > 3

    return Mail


FROZEN = pytest.mark.parametrize("frozen", [True, False])
CALLS: list[tuple[tuple[object, ...], dict[str, object]]] = [
    (("a",), {}),
    (("a", "text"), {}),
    (("a", "text", ["m"], "t"), {}),
    ((), {"to": "a"}),
    (("a",), {"secret": "x", "text": "long"}),
]
WRONG: list[tuple[tuple[object, ...], dict[str, object], str]] = [
    ((), {}, "Mail() needs to"),
    ((), {"text": "t"}, "Mail() needs to"),
    (("a", "b", [], "s", "e"), {}, "Mail() takes 4 values, 5 were given"),
    (("a",), {"to": "b"}, "Mail() got to twice"),
    (("a",), {"from": "b"}, "Mail() has no field from"),
]


@FROZEN
@pytest.mark.parametrize(("values", "named"), CALLS)
def test_it_holds_and_shows_the_same(frozen: bool, values: tuple[object, ...], named: dict[str, object]) -> None:
    ours, theirs = made(records.dataclass, frozen=frozen), made(dataclasses.dataclass, frozen=frozen)
    one, other = ours(*values, **named), theirs(*values, **named)
    assert asdict(one) == asdict(other)
    assert vars(one) == vars(other)
    assert repr(one) == repr(other)
    assert [each.name for each in fields(one)] == [each.name for each in fields(other)]
    assert asdict(replace(one, text="new")) == asdict(replace(other, text="new"))
    assert one.is_long is other.is_long
    assert ours.__match_args__ == theirs.__match_args__
    assert (ours.__doc__, ours.__name__) == (theirs.__doc__, theirs.__name__)


@FROZEN
@pytest.mark.parametrize(("values", "named", "said"), WRONG)
def test_what_does_not_fit_is_refused(
    frozen: bool, values: tuple[object, ...], named: dict[str, object], said: str
) -> None:
    with pytest.raises(TypeError):
        made(dataclasses.dataclass, frozen=frozen)(*values, **named)
    with pytest.raises(TypeError) as refusal:
        made(records.dataclass, frozen=frozen)(*values, **named)
    assert str(refusal.value).rpartition(".")[2] == said


@FROZEN
def test_a_list_is_made_for_each(frozen: bool) -> None:
    kind = made(records.dataclass, frozen=frozen)
    assert kind("a").marks is not kind("a").marks


@FROZEN
def test_equal_is_what_is_of_one_class_with_equal_fields(frozen: bool) -> None:
    kind, alike = made(records.dataclass, frozen=frozen), made(records.dataclass, frozen=frozen)
    assert kind("a", "t") == kind("a", text="t") != kind("a", "u")
    assert kind("a") != alike("a")
    assert kind("a") != ("a", "", [], "s")


def test_a_frozen_one_stays_as_it_is_and_can_be_a_key() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match="'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="'x'"):
        del point.x
    assert {point: "here"}[Point(1, 2)] == "here"
    assert len({Point(1), Point(1, 2), Point(2)}) == 2


def test_one_that_is_not_frozen_changes_and_has_no_hash() -> None:
    mail = made(records.dataclass, frozen=False)("a")
    mail.text = "new"
    assert asdict(mail)["text"] == "new"
    with pytest.raises(TypeError, match="unhashable"):
        hash(mail)


def test_it_is_copied_pickled_and_matched() -> None:
    point = Point(3, 4)
    assert pickle.loads(pickle.dumps(point)) == copy.copy(point) == copy.deepcopy(point) == point
    match point:
        case Point(x, y):
            assert (x, y) == (3, 4)


def test_what_a_class_says_of_itself_stays() -> None:
    @records.dataclass
    class Named:
        name: str

        def __repr__(self) -> str:
            return self.name

        def __eq__(self, other: object) -> bool:
            return True

    assert repr(Named("me")) == "me"
    assert Named("me") == "you"


def test_what_is_to_be_done_after_the_start_is_done() -> None:
    @records.dataclass
    class Counted:
        words: list[str]

        def __post_init__(self) -> None:
            self.count = len(self.words)

    assert Counted(["a", "b"]).count == 2


def test_a_class_takes_over_the_fields_of_its_base() -> None:
    @records.dataclass(frozen=True)
    class Space(Point):
        z: int = 3

    assert asdict(Space(1)) == {"x": 1, "y": 2, "z": 3}
    assert Space(1) != Point(1)
