"""What a policy opens: its entries, and the sentences for what is none."""

from __future__ import annotations

from typing import Any

import pytest

from lib.errors import OrchestratorError
from lib.judgement import guarding
from lib.judgement.guarding import Opened, Opening

ROLES = ("developer", "devops")

OPENINGS = (
    Opening("devops", ("refs/heads/deploy/*",)),
    Opening("*", ("refs/stash",)),
    Opening("devops", ("refs/tags/*",), force=True),
)


def test_a_role_has_what_is_opened_to_it_and_to_all() -> None:
    assert guarding.opened(OPENINGS, "devops") == Opened(("refs/heads/deploy/*", "refs/stash"), ("refs/tags/*",))
    assert guarding.opened(OPENINGS, "developer") == Opened(("refs/stash",))
    assert guarding.opened((), "developer") == Opened()


def test_a_policy_is_read() -> None:
    entries = [
        {"role": "devops", "refs": ["refs/heads/deploy/*"]},
        {"role": "*", "refs": ["refs/stash"]},
        {"role": "devops", "refs": ["refs/tags/*"], "force": True},
    ]
    assert guarding.parse(entries, roles=ROLES) == OPENINGS
    assert guarding.parse(None, roles=ROLES) == ()


WRONG: list[tuple[Any, str]] = [
    ("refs/heads/x", "must be a list"),
    (["refs/heads/x"], "entry 1"),
    ([{"role": "devops", "refs": ["refs/heads/x"], "why": "x"}], "unknown key 'why'"),
    ([{"role": "nobody", "refs": ["refs/heads/x"]}], "unknown role 'nobody'"),
    ([{"refs": ["refs/heads/x"]}], "unknown role None"),
    ([{"role": "devops"}], "refs must be a list"),
    ([{"role": "devops", "refs": "refs/heads/x"}], "refs must be a list"),
    # A short name would never fit a ref.
    ([{"role": "devops", "refs": ["main"]}], "'main'"),
    # In the rules a space would make two of it, and a line break another rule.
    ([{"role": "devops", "refs": ["refs/heads/a b"]}], "'refs/heads/a b'"),
    ([{"role": "devops", "refs": ["refs/heads/a\nfree refs/*"]}], "no name of refs"),
    ([{"role": "devops", "refs": ["refs/heads/x"], "force": "yes"}], "true or false"),
]


@pytest.mark.parametrize(("entries", "says"), WRONG)
def test_what_is_wrong_is_named(entries: Any, says: str) -> None:
    with pytest.raises(OrchestratorError) as error:
        guarding.parse(entries, roles=ROLES)
    assert says in error.value.sentence
