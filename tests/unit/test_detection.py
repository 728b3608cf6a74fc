"""Detecting the type of a project by files and words, and the roles that follow, with their reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import templates
from lib.errors import OrchestratorError
from lib.judgement.teams import Team, choose

CODE, WEB, DATA = "code_project", "web_application", "data_pipeline"
INFRA, DEPLOY = "infrastructure_as_code", "system_deployment"
FILES = "by the files of the project"
WORDS = "by the words of the spec"
BOTH = f"{FILES} and the words of the spec"


def team(files: str = "", spec: str = "", **options: object) -> Team:
    roles = templates.roles()
    needs = {one.name: one.needed_for for one in roles.values() if one.needed_for}
    return choose(
        spec,
        known_roles=list(roles),
        types=templates.team_types(),
        plans=templates.plans(),
        files=files.split(),
        needs=needs,
        **options,  # type: ignore[arg-type]
    )


ROWS = [
    ("", "", CODE, WORDS),
    ("README.md LICENSE", "", CODE, WORDS),
    ("pyproject.toml", "", CODE, FILES),
    ("setup.py", "", CODE, FILES),
    ("Cargo.toml src/main.rs", "", CODE, FILES),
    ("go.mod main.go", "", CODE, FILES),
    ("pom.xml", "", CODE, FILES),
    ("package.json", "", CODE, FILES),
    ("package.json a.csv b.csv c.csv", "", CODE, FILES),
    ("pyproject.toml a.csv b.csv c.csv d.csv e.csv f.csv", "", CODE, FILES),
    ("pyproject.toml Dockerfile", "", CODE, FILES),
    ("pyproject.toml infra/a.tf infra/b.tf infra/c.tf infra/d.tf", "", CODE, FILES),
    ("package.json vite.config.ts src/App.vue", "", WEB, FILES),
    ("package.json next.config.js", "", WEB, FILES),
    ("package.json src/App.tsx src/B.tsx index.html", "", WEB, FILES),
    ("angular.json package.json", "", WEB, FILES),
    ("manage.py requirements.txt", "", WEB, FILES),
    ("index.html style.css", "", WEB, FILES),
    ("dags/a.py dags/b.py dags/c.py", "", DATA, FILES),
    ("dbt_project.yml models/a.sql", "", DATA, FILES),
    ("dvc.yaml", "", DATA, FILES),
    ("a.csv", "", DATA, FILES),
    ("a.sql b.parquet", "", DATA, FILES),
    ("main.tf variables.tf", "", INFRA, FILES),
    ("modules/a/main.tf", "", INFRA, FILES),
    ("Chart.yaml", "", INFRA, FILES),
    ("Pulumi.yaml package.json", "", INFRA, FILES),
    ("ansible.cfg playbook.yml", "", INFRA, FILES),
    ("app.service", "", DEPLOY, FILES),
    ("docker-compose.yml nginx.conf", "", DEPLOY, FILES),
    ("Dockerfile", "", DEPLOY, FILES),
    ("", "Set up nginx.", DEPLOY, WORDS),
    ("", "A React page.", WEB, WORDS),
    ("", "An ETL job.", DATA, WORDS),
    ("", "Terraform modules.", INFRA, WORDS),
    ("", "A dashboard for the pipeline.", CODE, WORDS),
    ("pyproject.toml", "Put nginx before it.", CODE, FILES),
    ("pyproject.toml", "Terraform and Helm for the Kubernetes cluster.", INFRA, WORDS),
    ("main.tf", "More Terraform.", INFRA, BOTH),
    ("package.json vite.config.js", "A React dashboard.", WEB, BOTH),
    ("nginx.conf", "A firewall.", DEPLOY, BOTH),
    ("a.csv", "A dataset.", DATA, BOTH),
]


@pytest.mark.parametrize(("files", "spec", "kind", "reason"), ROWS)
def test_files_and_words_detect_the_type(files: str, spec: str, kind: str, reason: str) -> None:
    found = team(files, spec)
    assert (found.kind, found.reason) == (kind, f"{kind} {reason}, medium size")
    assert found.roles == team(team_type=kind).roles
    assert set(found.whys) == set(found.roles)


CODING = [
    ("main.tf", "Implement it.", {"plan": "pro"}, ("orchestrator", "developer", "devops")),
    ("app.service", "Fix the bug.", {"size": "small"}, ("orchestrator", "developer", "sysadmin")),
    ("app.service", "Fix the bug.", {"most": 2}, ("orchestrator", "developer")),
    ("app.service", "Fix the bug.", {"team_type": DEPLOY, "size": "small"}, ("orchestrator", "sysadmin", "devops")),
    ("main.tf", "Implement it.", {"roles": ("tester",)}, ("orchestrator", "tester")),
]


@pytest.mark.parametrize(("files", "spec", "options", "roles"), CODING)
def test_a_cap_keeps_whom_the_spec_needs(
    files: str, spec: str, options: dict[str, object], roles: tuple[str, ...]
) -> None:
    assert team(files, spec, **options).roles == roles


def test_a_role_that_the_spec_needs_says_which_word_it_was() -> None:
    assert team("main.tf", "Implement it.").whys["developer"] == "the spec says 'implement'"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMUX_ORCHESTRATOR_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "roles").mkdir()
    (tmp_path / "team_types").mkdir()
    return tmp_path


def test_the_users_own_types_and_roles_win(own: Path) -> None:
    (own / "roles" / "artist.md").write_text("---\nsummary: Draws.\ncheck_in_minutes: 9\n---\nDraw.\n")
    (own / "team_types" / "game.yaml").write_text("summary: A game.\nroles: [artist]\nfiles: {game.cfg: 3}\n")
    (own / "team_types" / "code_project.yaml").write_text("summary: Ours.\nroles: [tester]\n")
    assert team("game.cfg").roles == ("orchestrator", "artist")
    assert team().roles == ("orchestrator", "tester")


def test_a_role_has_rules_for_its_tools(own: Path) -> None:
    rules = "{allow: ['WebFetch(domain:example.org)'], deny: ['Bash(git push *)', mcp__github, WebSearch]}"
    (own / "roles" / "x.md").write_text(f"---\nsummary: x\ncheck_in_minutes: 9\npermissions: {rules}\n---\n")
    found = templates.roles()["x"]
    assert found.allow == ("WebFetch(domain:example.org)",)
    assert found.deny == ("Bash(git push *)", "mcp__github", "WebSearch")


def test_a_role_has_a_window_programs_and_tools_of_its_own(own: Path) -> None:
    more = "window: Data Base\nprerequisites: [psql, g++]\ntools: [Bash, Read]\n"
    (own / "roles" / "x.md").write_text(f"---\nsummary: x\ncheck_in_minutes: 9\n{more}---\n")
    (own / "roles" / "y.md").write_text("---\nsummary: y\ncheck_in_minutes: 9\ntools: []\n---\n")
    found = templates.roles()
    assert (found["x"].window, found["x"].prerequisites, found["x"].tools) == (
        *("Data Base", ("psql", "g++")),
        ("Bash", "Read"),
    )
    # An empty list is no tool; no list is every tool.
    assert (found["y"].window, found["y"].tools, found["tester"].tools) == ("y", (), None)


WRONG = [
    ("roles/x.md", "Draw."),
    ("roles/x.md", "---\nsummary: Draws.\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\npermissions: [Bash]\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\npermissions: {denied: [Bash]}\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\npermissions: {deny: Bash}\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\npermissions: {deny: ['Bash(git push']}\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\nwindow: '1'\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\nwindow: '#(touch x)'\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\nwindow: a.b\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\nprerequisites: psql\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\nprerequisites: ['psql --version']\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\ntools: ['Bash(git *)']\n---\n"),
    ("roles/x.md", "---\nsummary: x\ncheck_in_minutes: 9\ntools: Bash\n---\n"),
    ("roles/X y.md", ""),
    ("team_types/x.yaml", "roles: ["),
    ("team_types/x.yaml", "summary: x\nroles: [nobody]\n"),
    ("team_types/x.yaml", "summary: x\nroles: [tester]\nfiles: {a: many}\n"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_file_of_the_users_is_named(own: Path, name: str, text: str) -> None:
    (own / name).write_text(text)
    with pytest.raises(OrchestratorError) as raised:
        team()
    assert str(own / name) in raised.value.sentence
