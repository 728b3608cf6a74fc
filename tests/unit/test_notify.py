"""Addresses and what is said of them: never a part that could be a secret."""

from __future__ import annotations

import pytest

from lib import notices, notify
from lib.models import Notice, NoticeStatus

NAMES = [
    ("mailto://user:secret@box.example", "1 (mailto)"),
    ("TGRAM://123:token/456", "1 (tgram)"),
    # Without a scheme, all of it may be a secret.
    ("user:secret@box.example", "1 (no scheme)"),
    ("user:secret://box.example", "1 (no scheme)"),
]


@pytest.mark.parametrize(("url", "name"), NAMES)
def test_an_address_is_named_by_its_place_and_its_scheme(url: str, name: str) -> None:
    (address,) = notify.addresses([url])
    assert address.name == name
    assert "secret" not in repr(address)


def test_an_address_that_stands_there_twice_is_one() -> None:
    found = notify.addresses(["json://a", "json://b", "json://a"])
    assert [(address.position, address.url) for address in found] == [(1, "json://a"), (2, "json://b")]
    assert len({address.key for address in found}) == 2


def test_the_key_of_an_address_is_the_same_wherever_it_stands() -> None:
    assert notify.addresses(["json://a", "json://b"])[1].key == notify.addresses(["json://b"])[0].key


SECRETS = [
    # The password as it stands in the address, and as it is meant.
    ("mailto://user:p%40ss%2Fword@box.example", "rejected: p@ss/word (p%40ss%2Fword)", "rejected: *** (***)"),
    # A short one, as a word only.
    ("json://me:no@host.example", "no such user as me; unknown", "*** such user as ***; unknown"),
    # A token where others have the host, and one in the path.
    ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "bad t1jj3t3l2, TIiajkdnlazkcOXrIdevi7FQ", "bad ***, ***"),
    ("tgram://123456789:abcdefghijklm/12345", "chat 12345 of 123456789:abcdefghijklm", "chat *** of ***:***"),
    # In what follows a question mark.
    ("ntfy://host.example/topic?token=tk_abcdef", "token=tk_abcdef is none", "***=*** is none"),
    # What looks like a scheme and is none.
    ("user:secret://box.example", "no secret here", "no *** here"),
    # All of it.
    ("json://u:p@h.example/x", "Could not load json://u:p@h.example/x", "Could not load ***"),
]


@pytest.mark.parametrize(("url", "text", "clean"), SECRETS)
def test_nothing_of_an_address_is_in_what_is_said_of_it(url: str, text: str, clean: str) -> None:
    assert notify.without_secrets(text, url) == clean


def a_notice(number: int, **changed: object) -> Notice:
    values: dict[str, object] = {
        "id": number,
        "kind": "completed",
        "title": f"Title {number}",
        "body": f"Body {number}",
        "status": NoticeStatus.QUEUED,
        "not_before": 0,
        "reason": None,
        "queued_at": 0,
        "sent_at": None,
    }
    return Notice(**values | changed)  # type: ignore[arg-type]


def test_one_notice_is_its_own_letter() -> None:
    title, body = notices.as_letter([a_notice(1, body="Grüße\n<b>no</b> markup")], machine="turm")
    assert title == "Title 1"
    assert body.startswith("Grüße\n<b>no</b> markup\n\nturm, ")


def test_several_are_a_digest_that_names_the_last() -> None:
    title, body = notices.as_letter([a_notice(1), a_notice(2, body="one\ntwo")], machine="turm")
    assert title == "2 notices, the last: Title 2"
    assert "  Title 1\n    Body 1\n\n" in body and "  Title 2\n    one\n    two\n\nturm" in body


def test_a_title_is_one_line_and_carries_no_control_characters() -> None:
    title, body = notices.as_letter([a_notice(1, title="a\r\nBcc: b\x1b[31m" + "x" * 500, body="\x07ok")], machine="t")
    assert title.startswith("a Bcc: bxx") and len(title) == 150
    assert body.startswith("ok\n")


def test_a_long_text_is_cut_and_of_many_the_newest_are_kept() -> None:
    many = [a_notice(number, body="x" * 100_000) for number in range(1, 21)]
    assert len(notices.as_letter(many[:1], machine="t")[1]) < 4_100
    title, body = notices.as_letter(many, machine="t")
    assert title.startswith("20 notices") and len(body) < 21_000
    assert body.startswith("16 older ones are left out.") and "Title 20" in body and "Title 16" not in body
