"""Whose account a configuration folder uses: the same name on every machine, and nothing that tells who it is."""

from __future__ import annotations

import json
from pathlib import Path

from lib.claude import logins

LOGIN = {"accountUuid": "4a1e", "organizationUuid": "77aa", "emailAddress": "someone@example.org"}


def write(path: Path, **login: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"oauthAccount": login, "projects": {}}))


def test_one_login_is_one_account_wherever_it_is_used(tmp_path: Path) -> None:
    write(tmp_path / "one" / ".claude.json", **LOGIN)
    write(tmp_path / "two" / "work" / ".claude.json", **LOGIN | {"emailAddress": "other@example.org"})
    found = logins.account(tmp_path / "one" / ".claude", {})
    assert found and found == logins.account(tmp_path / "two" / "work", {})
    assert len(found) == 32 and not any(part in found for part in LOGIN.values())


def test_another_organization_or_login_is_another_account(tmp_path: Path) -> None:
    write(tmp_path / "a" / ".claude.json", **LOGIN)
    write(tmp_path / "b" / ".claude.json", **LOGIN | {"organizationUuid": "88bb"})
    write(tmp_path / "c" / ".claude.json", **LOGIN | {"accountUuid": "5b2f"})
    assert len({logins.account(tmp_path / name, {}) for name in "abc"}) == 3


def test_a_key_comes_before_the_login_and_is_not_told(tmp_path: Path) -> None:
    write(tmp_path / "a" / ".claude.json", **LOGIN)
    with_key = logins.account(tmp_path / "a", {"ANTHROPIC_API_KEY": "sk-1"})
    assert with_key == logins.account(tmp_path / "nothing", {"ANTHROPIC_API_KEY": "sk-1"})
    assert with_key and "sk-1" not in with_key
    found = [{"ANTHROPIC_API_KEY": "sk-2"}, {"CLAUDE_CODE_OAUTH_TOKEN": "sk-1"}, {}]
    assert with_key not in [logins.account(tmp_path / "a", environment) for environment in found]


def test_where_nothing_tells_it_there_is_none(tmp_path: Path) -> None:
    for number, text in enumerate(["", "[]", '{"oauthAccount": null}', '{"oauthAccount": []}', '{"projects": {}}']):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / ".claude.json").write_text(text)
        assert logins.account(folder, {"ANTHROPIC_API_KEY": ""}) is None
    assert logins.account(tmp_path / "not there", {}) is None
