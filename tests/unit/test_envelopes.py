"""What hosts write for one another, between the versions of a fleet that is upgraded host by host."""

from __future__ import annotations

import json

import pytest

from lib.fleet.envelopes import VERSION, Unreadable, pack, unpack


def test_what_is_packed_is_unpacked_with_its_version() -> None:
    assert unpack(pack({"host": "box", "labels": ["gpu"]})) == {"host": "box", "labels": ["gpu"], "v": VERSION}


def test_the_version_before_is_read() -> None:
    assert unpack(pack({"host": "box"}, version=VERSION - 1, readable_since=VERSION - 1))["host"] == "box"


def test_the_next_version_is_read_where_it_says_so_with_fields_that_nobody_knows_here() -> None:
    found = unpack(pack({"host": "box", "mood": "good"}, version=VERSION + 1, readable_since=VERSION))
    assert (found["host"], found["mood"]) == ("box", "good")


UNREADABLE = [
    # Too new, by its own word and without one.
    (pack({}, version=VERSION + 2, readable_since=VERSION + 1), "upgrade the Tmux Orchestrator on this machine"),
    (json.dumps({"v": VERSION + 1}).encode(), "upgrade the Tmux Orchestrator on this machine"),
    # Too old.
    (pack({}, version=VERSION - 2, readable_since=VERSION - 2), "upgrade the Tmux Orchestrator on the other machine"),
    # None at all.
    (b"", None),
    (b"\xff\xfe", None),
    (b"[1]", None),
    (b'{"host": "box"}', None),
    (b'{"v": true}', None),
    (b'{"v": 1, "min": "x"}', None),
]


@pytest.mark.parametrize(("data", "hint"), UNREADABLE)
def test_what_cannot_be_read_is_refused_in_a_sentence(data: bytes, hint: str | None) -> None:
    with pytest.raises(Unreadable) as raised:
        unpack(data)
    assert raised.value.sentence
    assert hint is None or raised.value.hint == hint
