"""The layers hold: who may import whom, who owns which table, who runs tmux and git, and what stays light."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from lib import schema
from tests.conftest import ROOT, Bench

#: The map of lib/: rows from the lowest up. A new module has no row and fails until it gets one.
ROWS: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {"words": ("", "errors", "models", "records")},
    {
        "outside": (
            *("config", "schema", "store", "tmux", "host", "templates", "notify", "cron", "headless", "resets"),
            "service",
            *("commands", "api", "recordings"),
            *("claude", "claude.installed", "claude.starting", "claude.hooks", "claude.sessions"),
            *("claude.transcripts", "claude.refusals", "claude.spending", "claude.logins"),
            *("git", "git.repository", "git.worktrees", "git.holdings", "git.snapshots", "git.removals", "git.guards"),
            *("git.standing", "git.merges", "git.remotes", "git.bundles"),
        ),
        "judgement": (
            *("judgement", "judgement.specs", "judgement.teams", "judgement.screens", "judgement.framing"),
            *("judgement.cleaning", "judgement.routing", "judgement.retries", "judgement.stuck"),
            *("judgement.meanwhile", "judgement.occurrences", "judgement.batchfile", "judgement.shapes"),
            *("judgement.guarding", "judgement.prices", "judgement.supervising", "judgement.forecasts"),
            *("judgement.findings", "judgement.analyses", "judgement.refinements", "judgement.durations"),
            *("judgement.hindsight", "judgement.capacity", "judgement.loads", "judgement.ordeals"),
            *("judgement.choices", "judgement.thresholds", "judgement.canaries"),
        ),
    },
    {
        "work": (
            *(
                "agents",
                "messages",
                "signals",
                "composer",
                "delivery",
                "couriers",
                "checkins",
                "orchestrations",
                "reports",
            ),
            *("dependencies", "authorizations", "hub", "planning", "launch", "stopping", "status", "history", "daemon"),
            *("notices", "pings", "errands", "keeping", "named_locks", "news", "limits", "holds", "governor"),
            *("safekeeping", "clearing", "boundaries", "preparing", "provenance", "new_projects"),
            *("insights", "analysis", "criteria", "relations", "recorder", "moments", "logs"),
            *("together", "together.radar", "together.overlaps", "together.sync_status", "together.bringing"),
            "together.handing_over",
            *("merging", "merging.candidates", "merging.integrations", "merging.scratch", "merging.checks"),
            *("merging.hub", "merging.delivering", "merging.sharing", "merging.judging", "merging.announcing"),
            *("spending", "spending.growth", "spending.ledger", "spending.budgets", "spending.halting"),
            "spending.outlooks",
            *("probing", "probing.model", "probing.scene", "probing.checks", "probing.__main__"),
            *("verdicts", "checkup", "decisions", "replay"),
            *("tuning", "tidying", "overview", "dossier", "pauses", "briefing", "looks", "dialogs"),
            *("fleet.entries", "fleet.fencing", "fleet.travel", "fleet.trying"),
            *("fleet.record", "fleet.putting", "fleet.taking", "fleet.working", "fleet.tidying"),
            *("fleet.accounts", "fleet.totals", "fleet.sharing"),
            *("fleet", "fleet.envelopes", "fleet.permissions", "fleet.connection", "fleet.buckets", "fleet.roster"),
            *("fleet.certificates", "fleet.tickets", "fleet.founding", "fleet.joining"),
            *(
                "fleet.members",
                "fleet.outbox",
                "fleet.addressing",
                "fleet.letters",
                "fleet.post",
                "fleet.views",
                "fleet.link",
                "fleet.hosts",
            ),
            *("queue", "queue.entries", "queue.draining", "queue.evidence", "queue.research", "queue.intake"),
        )
    },
    {
        "front": (
            *(
                "front",
                "front.cli",
                "front.scheduling",
                "front.beating",
                "front.noticing",
                "front.watching",
                "front.queueing",
                "front.founding",
            ),
            "front.fleet_queue",
            *(
                "front.reminding",
                "front.locking",
                "front.starting",
                "front.plans",
                "front.checking",
                "front.progress",
                "front.demo",
                "front.hook",
            ),
            *("front.batching", "front.researching", "front.mcp_server", "front.sync_board", "front.suggesting"),
            *("front.syncing", "front.syncing.desk", "front.syncing.snapshots", "front.syncing.clean"),
            *("front.syncing.merge", "front.syncing.together", "front.syncing.watching"),
            *("front.control", "front.control.budget", "front.control.costs", "front.control.desk"),
            *("front.control.commits", "front.control.hub", "front.control.mail", "front.control.progress"),
            *("front.control.doctor", "front.control.replay", "front.control.fleet"),
            *("front.control.team", "front.control.insights", "front.control.criteria", "front.tuning"),
            *("front.control.handovers", "front.control.timeline", "front.times", "front.fleeting"),
            *("front.sandbox", "front.load", "front.load.fleet", "front.load.traffic", "front.load.meter"),
            *("front.load.trial", "front.load.report"),
            *("front.live", "front.projects", "front.control.monitor", "front.control.report", "front.refining"),
            *("front.web", "front.web.serving", "front.web.app", "front.web.site", "front.web.security"),
            *("front.web.access", "front.web.live", "front.web.stream", "front.web.pieces", "front.web.contract"),
            *("front.web.schemas", "front.web.views", "front.web.actions", "front.web.specs", "front.web.pages"),
            *("front.chaos", "front.chaos.ground", "front.chaos.team", "front.chaos.ordeal", "front.chaos.strikes"),
            *("front.chaos.checks", "front.chaos.running", "front.chaos.machine"),
            *("front.web.metrics", "front.web.ansi", "front.web.answers", "front.web.past"),
            # A program of its own, which only the agents' windows start: it knows nothing of the rooms.
            *("rehearsal", "rehearsal.__main__", "rehearsal.agent", "rehearsal.hooks", "rehearsal.play"),
            *("rehearsal.terminal", "rehearsal.transcript", "rehearsal.work"),
        )
    },
)

#: Judgement takes values and gives values: none of these, and of pathlib only the names without a disk.
INPUT_AND_OUTPUT = frozenset(
    {"os", "io", "subprocess", "sqlite3", "time", "datetime", "random", "secrets", "socket", "shutil", "tempfile"}
)

#: Who owns each table of the schema; store.py creates them all, as schema.py has them.
OWNERS = {
    "orchestrations": "orchestrations",
    "agents": "agents",
    "messages": "messages",
    "check_ins": "checkins",
    "reports": "reports",
    "dependencies": "dependencies",
    "authorizations": "authorizations",
    "batches": "queue.entries",
    "queue_entries": "queue.entries",
    "attempts": "queue.entries",
    "queue_switch": "queue.entries",
    "notices": "notices",
    "dispatches": "notices",
    "limits": "limits",
    "limited_agents": "limits",
    "ping": "pings",
    "lanes": "together.handing_over",
    "preparations": "preparing",
    "leases": "preparing",
    "worktree_looks": "safekeeping",
    "snapshot_pruning": "safekeeping",
    "radar": "together.radar",
    "radar_looks": "together.radar",
    "overlaps": "together.overlaps",
    "candidates": "merging.candidates",
    "integrations": "merging.integrations",
    "transcript_offsets": "spending.growth",
    "spending": "spending.ledger",
    "spending_days": "spending.ledger",
    "budgets": "spending.budgets",
    "budget_stops": "spending.budgets",
    "counted_answers": "spending.ledger",
    "insights": "insights",
    "insight_words": "insights",
    "bulletins": "relations",
    "analyses": "analysis",
    "criteria": "criteria",
    "criterion_checks": "criteria",
    "judgings": "criteria",
    "verdicts": "verdicts",
    "decisions": "decisions",
    "fleet_hosts": "fleet.members",
    "fleet_orders": "fleet.members",
    "fleet_link": "fleet.members",
    "fleet_outbox": "fleet.outbox",
    "fleet_entries": "fleet.entries",
    "fleet_puts": "fleet.entries",
    "fleet_bundles": "fleet.entries",
    "fleet_leases": "fleet.entries",
    "fleet_letters": "fleet.letters",
    "fleet_accounts": "fleet.totals",
    "fleet_limits": "fleet.accounts",
    "fleet_totals": "fleet.totals",
    "events": "store",
}
#: Reading across the fence, with the reason.
READERS = {
    ("together.overlaps", "agents"): "a team's overlaps are those of its agents",
    ("together.radar", "agents"): "whether a team has worktrees to compare is one question of every beat",
    ("together.radar", "orchestrations"): "whether a team has worktrees to compare is one question of every beat",
    ("agents", "orchestrations"): "an agent is shown with its session, program and status: one row, one look",
    ("checkins", "agents"): "a check-in is shown with its target; a team's are cancelled as one",
    ("checkins", "events"): "its figures of a day are counts of its events, by an index of their own",
    ("authorizations", "agents"): "a team's open questions end as one",
    ("criteria", "orchestrations"): "whose criteria are to be checked is one question of every beat",
    ("dependencies", "reports"): "what a role has reported is the evidence for who waits for it",
    ("spending.growth", "agents"): "what could not be counted is told for a team",
    ("spending.ledger", "agents"): "what was spent is shown by agent and role: one row, one look",
    ("spending.ledger", "orchestrations"): "whose transcripts are followed is one question of every minute",
    ("messages", "agents"): "a team's messages are cancelled as one; those to other hosts are known by their agents",
    ("fleet.letters", "messages"): "what has become of other hosts' letters is one question of every look",
    ("spending.budgets", "orchestrations"): "whether an account's budget is spent is one question before every launch",
    ("preparing", "agents"): "a lease ends with the orchestration of its agent",
    ("preparing", "orchestrations"): "a lease ends with the orchestration of its agent",
    ("relations", "messages"): "whether what carries a bulletin has arrived",
    ("reports", "agents"): "a report is counted by its role",
    ("merging.integrations", "candidates"): "for which team something is to be done is one question of every beat",
    ("safekeeping", "agents"): "whose worktree is due is one question of every beat",
    ("safekeeping", "orchestrations"): "whose worktree is due is one question of every beat",
}

#: Changing across the fence, with the reason.
BREAKS = {("front.chaos.team", "agents"): "another boot of the machine, of which only what is recorded can be changed"}

#: Rooms that run a program that belongs to another room, with the reason.
RUNS = {
    "tmux": {"tmux": "the room of tmux"},
    "git": {
        "git.worktrees": "the room of git",
        "git.repository": "git for what is plumbing of ours, in a process that need not load GitPython",
        "rehearsal.work": "a rehearsal agent's own hands, in its own process: it commits as a model would",
    },
}

#: Where everything may be caught, with the reason.
CATCH_ALL = {
    "front.cli": "the boundary of every door: a bug becomes exit code 70 and a kept traceback",
    "daemon": "a step that fails must not stop the others",
    "fleet.link": "a task that fails must not stop the others",
    "notify": "what a service's code raises must not stop the others, and may hold a password",
}
#: `except BaseException` that raises again is not catching.
CLEANS_UP = {
    "store": "a transaction is rolled back whatever ends it, and the error goes on",
    "recordings": "the same for the file of the recording",
}

HEAVY = ("rich", "git", "flask", "waitress", "psutil", "yaml", "jinja2", "apprise", "requests", "cronsim", "anthropic")


def modules() -> dict[str, Path]:
    """Every module of lib/ by its dotted name below lib."""
    lib = ROOT / "lib"
    found = {}
    for path in sorted(lib.rglob("*.py")):
        parts = list(path.relative_to(lib).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def imports(source: ast.Module, known: Sequence[str]) -> set[str]:
    """The modules of lib that a source imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            assert node.level == 0
            base = node.module.removeprefix("lib").lstrip(".")
            inner = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in known else base for name in inner}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("lib.") for alias in node.names if alias.name.startswith("lib.")}
    return found


def foreign(source: ast.Module) -> set[str]:
    """The top names of what a source imports from elsewhere; `pathlib.Path` for one name of pathlib."""
    found: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.split(".")[0]
            found |= {f"pathlib.{alias.name}" for alias in node.names} if top == "pathlib" else {top}
    return found - {"lib", "__future__"}


GRAPH = {name: imports(tree(path), list(MODULES)) for name, path in MODULES.items()}


def row_of(module: str) -> int:
    return next(number for number, row in enumerate(ROWS) for names in row.values() if module in names)


def layer(name: str) -> tuple[str, ...]:
    return next(row[name] for row in ROWS if name in row)


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules that are left when those that import nothing are taken away, again and again."""
    # A folder's __init__ and its modules are one: importing a module loads the __init__ first.
    left = {
        name: {one for one in used if one in graph and one != name and not one.startswith(f"{name}.")}
        for name, used in graph.items()
    }
    while free := {name for name, used in left.items() if not used}:
        left = {name: used - free for name, used in left.items() if name not in free}
    return sorted(left)


def strings(source: ast.Module) -> Iterator[str]:
    """Every string of a source; of one with values in it the fixed pieces, joined by a question mark."""
    for node in ast.walk(source):
        if isinstance(node, ast.JoinedStr):
            yield "?".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def tables() -> set[str]:
    return {name for step in schema.MIGRATIONS for name in re.findall(r"CREATE (?:VIRTUAL )?TABLE (\w+)", step)}


def tables_named_in(source: ast.Module) -> set[str]:
    sql = re.compile(r"\b(?:INTO|UPDATE(?:\s+OR\s+[A-Z]+)?|FROM|JOIN|TABLE)\s+(\w+)")
    return {name for text in strings(source) for name in sql.findall(text)} & tables()


def tables_changed_in(source: ast.Module) -> set[str]:
    sql = re.compile(r"\b(?:INTO|UPDATE(?:\s+OR\s+[A-Z]+)?|DELETE\s+FROM)\s+(\w+)")
    return {name for text in strings(source) for name in sql.findall(text)} & tables()


def programs_run_in(source: ast.Module) -> set[str]:
    """The first words of lists and tuples that look like command lines of tmux or git."""
    found = set()
    for node in ast.walk(source):
        first = node.elts[0] if isinstance(node, ast.List) and node.elts else None
        if isinstance(first, ast.Constant) and first.value in RUNS:
            found.add(str(first.value))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {program for program in RUNS if re.match(rf"{program} -[LSC]\b", node.value)}
    return found


def catches_all(source: ast.Module) -> set[str]:
    """The names of what catches everything: bare, `Exception` or `BaseException`."""
    found = set()
    for node in ast.walk(source):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                found.add("bare")
            named = {one.id for one in ast.walk(node.type) if isinstance(one, ast.Name)} if node.type else set()
            found |= named & {"Exception", "BaseException"}
    return found


def test_every_module_has_exactly_one_row() -> None:
    placed = [name for row in ROWS for names in row.values() for name in names]
    assert sorted(placed) == sorted(MODULES)


@pytest.mark.parametrize("module", list(MODULES))
def test_a_module_imports_only_downwards(module: str) -> None:
    if not module.startswith("rehearsal"):
        assert not {name for name in GRAPH[module] if name.startswith("rehearsal")}, "only the agents' windows start it"
    upwards = {name for name in GRAPH[module] if row_of(name) > row_of(module)}
    assert upwards == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "+".join(row))
def test_modules_of_one_row_import_each_other_without_a_circle(row: Mapping[str, tuple[str, ...]]) -> None:
    names = {name for group in row.values() for name in group}
    assert cycle({name: GRAPH[name] & names for name in names}) == []


def test_the_rehearsal_knows_nothing_of_the_rooms() -> None:
    # It stands for a foreign program: what it shared with the rooms would be tested against itself. How a class is made
    # is no knowledge of a room.
    used = {name for module in MODULES if module.startswith("rehearsal") for name in GRAPH[module]}
    assert {name for name in used if not name.startswith("rehearsal")} <= {"records"}


@pytest.mark.parametrize("module", [*layer("judgement"), "models", "errors", "rehearsal.play"])
def test_judgement_has_no_clock_and_no_disk(module: str) -> None:
    allowed = {"pathlib.PurePath", "pathlib.PurePosixPath"}
    if module == "models":
        allowed |= {"pathlib.Path"}  # a noun's field may be a place; the module does nothing with it
    used = foreign(tree(MODULES[module]))
    assert used & INPUT_AND_OUTPUT == set()
    assert {name for name in used if name.startswith("pathlib")} <= allowed
    assert "open" not in {node.id for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Name)}


def test_every_table_has_an_owner() -> None:
    assert tables() == set(OWNERS)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("store", "schema")])
def test_a_room_changes_only_its_own_table(module: str) -> None:
    foreign_tables = {table for table in tables_changed_in(tree(MODULES[module])) if OWNERS[table] != module}
    assert {(module, table) for table in foreign_tables} <= set(BREAKS)


def test_a_room_reads_only_its_own_table_and_the_listed_ones() -> None:
    found = {
        (module, table)
        for module, path in MODULES.items()
        for table in tables_named_in(tree(path))
        if OWNERS[table] != module and module not in ("store", "schema") and (module, table) not in BREAKS
    }
    assert found == set(READERS)


def test_doors_hold_no_sql() -> None:
    assert [path.name for path in ROOT.glob("*.py") if tables_named_in(tree(path))] == []


@pytest.mark.parametrize("program", list(RUNS))
def test_only_its_room_runs_a_program(program: str) -> None:
    found = {module for module, path in MODULES.items() if program in programs_run_in(tree(path))}
    assert found == set(RUNS[program])
    assert [path.name for path in ROOT.glob("*.py") if program in programs_run_in(tree(path))] == []


def test_only_the_room_of_git_imports_gitpython() -> None:
    assert {module for module, path in MODULES.items() if "git" in foreign(tree(path))} == {"git.worktrees"}


def test_only_the_room_of_notices_that_go_out_imports_apprise() -> None:
    assert {module for module, path in MODULES.items() if "apprise" in foreign(tree(path))} == {"notify"}


def test_only_the_room_of_the_api_imports_its_sdk() -> None:
    assert {module for module, path in MODULES.items() if "anthropic" in foreign(tree(path))} == {"api"}


def test_only_the_rooms_of_the_fleet_import_nats() -> None:
    users = {module for module, path in MODULES.items() if "nats" in foreign(tree(path))}
    assert users and all(module.startswith("fleet.") for module in users)


def test_only_the_room_of_cron_lines_imports_cronsim() -> None:
    assert {module for module, path in MODULES.items() if "cronsim" in foreign(tree(path))} == {"cron"}


def test_everything_is_caught_only_where_there_is_a_reason() -> None:
    caught = {module: catches_all(tree(path)) for module, path in MODULES.items()}
    assert {module for module, what in caught.items() if what & {"bare", "Exception"}} == set(CATCH_ALL)
    assert {module for module, what in caught.items() if "BaseException" in what} == set(CLEANS_UP)
    for module in CLEANS_UP:
        for node in ast.walk(tree(MODULES[module])):
            if isinstance(node, ast.ExceptHandler) and "BaseException" in ast.unparse(node.type or ast.Constant(None)):
                assert isinstance(node.body[-1], ast.Raise)


def test_the_hook_imports_nothing_that_costs_time() -> None:
    # It runs several times a turn of every agent.
    assert foreign(tree(MODULES["front.hook"])) == {"os", "sys", "time"}
    assert GRAPH["front.hook"] == set()


SENDS = """
import json, sys
import claude_control
from lib.errors import NotFound
try:
    claude_control.main(["send", "webapp-impl:developer", "hello"], standalone_mode=False)
except NotFound:
    print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def test_sending_a_message_imports_nothing_heavy(bench: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SENDS], cwd=ROOT, env=bench.environment, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert {"click", "sqlite3", "lib"} <= loaded
    assert loaded & set(HEAVY) == set()


# -- the rules themselves notice --

NOTICES = [
    # A circle of two, inside functions as well.
    (lambda: cycle({"a": {"b"}, "b": {"a"}, "c": {"a"}}), ["a", "b", "c"]),
    # No circle.
    (lambda: cycle({"a": {"b"}, "b": set()}), []),
    # A table that is named in a string with values in it.
    (lambda: tables_named_in(ast.parse('db.execute(f"SELECT {x} FROM agents WHERE {y}")')), {"agents"}),
    # A change by another spelling.
    (lambda: tables_changed_in(ast.parse('"UPDATE OR IGNORE check_ins SET x = 1"')), {"check_ins"}),
    # The index that is searched is a table too, by its virtual name.
    (lambda: tables_changed_in(ast.parse('"DELETE FROM insight_words WHERE rowid = ?"')), {"insight_words"}),
    # Prose is no SQL.
    (lambda: tables_named_in(ast.parse('"messages from agents"')), set()),
    # A command line of tmux.
    (lambda: programs_run_in(ast.parse('run(["tmux", "ls"])')), {"tmux"}),
    # A list of words that ends with git is none.
    (lambda: programs_run_in(ast.parse('x = ["a", "git"]')), set()),
    # Everything caught, among others.
    (lambda: catches_all(ast.parse("try:\n pass\nexcept (OSError, Exception):\n pass")), {"Exception"}),
    (lambda: catches_all(ast.parse("try:\n pass\nexcept:\n pass")), {"bare"}),
    # An import inside a function is one too.
    (lambda: imports(ast.parse("def f():\n from lib import daemon"), ["daemon"]), {"daemon"}),
    (lambda: imports(ast.parse("from lib.rehearsal.work import Hands"), ["rehearsal.work"]), {"rehearsal.work"}),
]


@pytest.mark.parametrize(("look", "found"), NOTICES)
def test_a_breach_is_noticed(look: object, found: object) -> None:
    assert callable(look)
    assert look() == found


def test_the_map_is_complete() -> None:
    """ARCHITECTURE.md names every file of lib/, and none that is not there."""
    said = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## State home")[0]
    there = {path.name for path in (ROOT / "lib").rglob("*") if path.suffix in (".py", ".sh")} - {"__init__.py"}
    assert [name for name in sorted(there) if f"`{name}`" not in said] == []
    rooms = said.partition("## Rooms")[2].partition("| Elsewhere |")[0]
    doors = {path.name for path in ROOT.glob("*.py")}
    assert set(re.findall(r"`(\w+\.(?:py|sh))`", rooms)) - there - doors == set()
