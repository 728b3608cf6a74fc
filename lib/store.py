"""The one durable store: an SQLite database in the state home, its schema, and the history of events."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from lib.errors import OrchestratorError, Unavailable
from lib.models import Event

_FIRST = """
CREATE TABLE orchestrations (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    session TEXT NOT NULL,
    spec_path TEXT NOT NULL,
    spec_title TEXT NOT NULL,
    spec_text TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN
        ('starting', 'running', 'paused', 'needs_attention', 'completed', 'failed', 'stopped')),
    program TEXT NOT NULL CHECK (program IN ('claude', 'rehearsal')),
    config_dir TEXT NOT NULL,
    starting_branch TEXT,
    starting_commit TEXT NOT NULL,
    branches TEXT NOT NULL, -- what the names of all its branches begin with
    git_mode TEXT NOT NULL CHECK (git_mode IN ('local', 'github')),
    messages_per_minute INTEGER NOT NULL CHECK (messages_per_minute > 0),
    unattended INTEGER NOT NULL CHECK (unattended IN (0, 1)), -- started by the queue
    outcome TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    paused_at INTEGER -- since when a person has it paused
) STRICT;
CREATE UNIQUE INDEX one_live_session ON orchestrations (session)
    WHERE status IN ('starting', 'running', 'paused', 'needs_attention');
CREATE UNIQUE INDEX one_live_per_project ON orchestrations (project)
    WHERE status IN ('starting', 'running', 'paused', 'needs_attention');

CREATE TABLE analyses ( -- what a model has made of a spec before its team was launched
    orchestration_id TEXT PRIMARY KEY REFERENCES orchestrations (id),
    found TEXT NOT NULL, -- JSON, as judgement/analyses.py has it
    cost_usd REAL,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE agents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestration_id TEXT REFERENCES orchestrations (id), -- NULL for a guest: a claude that a person started
    session TEXT NOT NULL,
    role TEXT NOT NULL,
    window INTEGER NOT NULL,
    program TEXT NOT NULL CHECK (program IN ('claude', 'rehearsal')),
    config_dir TEXT NOT NULL,
    worktree TEXT NOT NULL,
    branch TEXT UNIQUE,
    conversation_id TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    pane_id TEXT,
    pane_pid INTEGER,
    pid INTEGER, -- the three of a process, all or none
    started INTEGER,
    boot TEXT,
    last_hook TEXT,
    last_hook_at INTEGER,
    UNIQUE (orchestration_id, role),
    UNIQUE (orchestration_id, window)
) STRICT;
CREATE UNIQUE INDEX one_guest_per_pane ON agents (pane_id) WHERE orchestration_id IS NULL;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    sender TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN
        ('briefing', 'message', 'copy', 'check_in', 'report', 'notice', 'digest', 'command')),
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 3),
    body TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN
        ('queued', 'pasted', 'submitted', 'acknowledged', 'failed', 'cancelled')),
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    held INTEGER NOT NULL DEFAULT 0,
    carried_by INTEGER REFERENCES messages (id),
    queued_at INTEGER NOT NULL,
    pasted_at INTEGER,
    submitted_at INTEGER,
    acknowledged_at INTEGER
) STRICT;
CREATE INDEX pending_messages ON messages (agent_id, id)
    WHERE status IN ('queued', 'pasted', 'submitted');
CREATE INDEX recent_messages ON messages (agent_id, pasted_at);
CREATE UNIQUE INDEX one_briefing ON messages (agent_id) WHERE kind = 'briefing';

CREATE TABLE check_ins (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    note TEXT NOT NULL,
    planned_at INTEGER NOT NULL, -- on its grid
    due_at INTEGER NOT NULL, -- that and the jitter
    decided_at INTEGER NOT NULL, -- when the two were decided
    interval_minutes INTEGER CHECK (interval_minutes > 0),
    cron TEXT,
    catch_up TEXT NOT NULL CHECK (catch_up IN ('once', 'skip', 'all')),
    deadline_minutes INTEGER CHECK (deadline_minutes > 0),
    jitter_seconds INTEGER NOT NULL CHECK (jitter_seconds >= 0),
    if_changed INTEGER NOT NULL CHECK (if_changed IN (0, 1)),
    seen TEXT, -- what there was when it was last told, as news.py counts it
    status TEXT NOT NULL CHECK (status IN ('scheduled', 'fired', 'skipped', 'cancelled', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    fired_at INTEGER,
    CHECK (interval_minutes IS NULL OR cron IS NULL)
) STRICT;
CREATE INDEX due_check_ins ON check_ins (due_at) WHERE status = 'scheduled';
CREATE INDEX decided_check_ins ON check_ins (decided_at) WHERE status = 'scheduled';
CREATE UNIQUE INDEX one_check_in_at_intervals ON check_ins (agent_id)
    WHERE status = 'scheduled' AND interval_minutes IS NOT NULL;
CREATE UNIQUE INDEX one_cron_line_for_a_note ON check_ins (agent_id, note)
    WHERE status = 'scheduled' AND cron IS NOT NULL;

CREATE TABLE reports (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    summary TEXT NOT NULL,
    branch TEXT NOT NULL,
    head TEXT NOT NULL,
    commits INTEGER NOT NULL,
    files TEXT NOT NULL,
    check_command TEXT, -- the three of a check that was asked for, all or none
    check_exit INTEGER,
    check_output TEXT,
    message_id INTEGER REFERENCES messages (id), -- to the orchestrator; NULL for its own report
    status TEXT NOT NULL CHECK (status IN ('done', 'waiting', 'refused', 'superseded')),
    after_check INTEGER NOT NULL DEFAULT 0, -- of a waiting one: the newest check of a criterion before it
    at INTEGER NOT NULL,
    UNIQUE (agent_id, head, summary)
) STRICT;
CREATE UNIQUE INDEX one_waiting_report ON reports (agent_id) WHERE status = 'waiting';

CREATE TABLE criteria ( -- when the work of an orchestration is done
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestration_id TEXT NOT NULL REFERENCES orchestrations (id),
    id TEXT NOT NULL, -- in its spec
    text TEXT NOT NULL,
    command TEXT, -- that checks it; NULL when nothing does
    closed_by TEXT, -- the four of a closing by hand, all or none
    closed_reason TEXT,
    closed_commit TEXT,
    closed_at INTEGER,
    UNIQUE (orchestration_id, id),
    CHECK ((closed_by IS NULL) = (closed_at IS NULL) AND (closed_reason IS NULL) = (closed_at IS NULL)
        AND (closed_commit IS NULL) = (closed_at IS NULL))
) STRICT;

CREATE TABLE criterion_checks ( -- each run of a criterion's check
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    criterion_key INTEGER NOT NULL REFERENCES criteria (key),
    command TEXT NOT NULL,
    head TEXT NOT NULL, -- the commit
    tree TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    output TEXT NOT NULL, -- its end
    duration_ms INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX checks_of_criterion ON criterion_checks (criterion_key, id);

CREATE TABLE judgings ( -- how checking an orchestration's criteria goes
    orchestration_id TEXT PRIMARY KEY REFERENCES orchestrations (id),
    wanted INTEGER NOT NULL DEFAULT 0, -- how often it was asked for, and up to where that was answered
    done INTEGER NOT NULL DEFAULT 0,
    progress INTEGER NOT NULL DEFAULT 0, -- the last asking that was about the integration
    fresh_after INTEGER NOT NULL DEFAULT 0, -- for which no older check counts
    failures INTEGER NOT NULL DEFAULT 0, -- of the errand, since it last came to its end
    not_before INTEGER NOT NULL,
    trouble TEXT
) STRICT;
CREATE INDEX wanted_judgings ON judgings (orchestration_id) WHERE wanted > done;

CREATE TABLE dependencies (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestration_id TEXT NOT NULL REFERENCES orchestrations (id),
    role TEXT NOT NULL,
    on_role TEXT NOT NULL CHECK (on_role != role),
    resolved_at INTEGER,
    message_id INTEGER UNIQUE REFERENCES messages (id), -- the one notice
    CHECK ((resolved_at IS NULL) = (message_id IS NULL)),
    UNIQUE (orchestration_id, role, on_role)
) STRICT;

CREATE TABLE authorizations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    requester_id INTEGER NOT NULL REFERENCES agents (id),
    target_id INTEGER NOT NULL REFERENCES agents (id),
    what TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'granted', 'refused', 'escalated', 'expired')),
    period_minutes INTEGER NOT NULL CHECK (period_minutes > 0),
    requested_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    decided_by TEXT,
    decided_at INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX due_authorizations ON authorizations (due_at) WHERE status IN ('pending', 'escalated');
CREATE UNIQUE INDEX one_open_request ON authorizations (requester_id, target_id, what)
    WHERE status IN ('pending', 'escalated');

CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    summarized_at INTEGER -- when it was told that all of it is over
) STRICT;

CREATE TABLE queue_entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch_id INTEGER NOT NULL REFERENCES batches (id),
    spec_path TEXT NOT NULL,
    spec_text TEXT NOT NULL,
    project TEXT NOT NULL,
    options TEXT NOT NULL, -- JSON, as a launch takes them
    tags TEXT NOT NULL, -- JSON
    priority INTEGER NOT NULL,
    budget_minutes INTEGER CHECK (budget_minutes > 0),
    status TEXT NOT NULL CHECK (status IN
        ('queued', 'running', 'succeeded', 'failed', 'abandoned', 'cancelled')),
    failures INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL,
    reason TEXT,
    added_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_running_per_project ON queue_entries (project) WHERE status = 'running';
CREATE INDEX unfinished_entries ON queue_entries (priority DESC, id) WHERE status IN ('queued', 'running', 'failed');
CREATE INDEX entries_of_batch ON queue_entries (batch_id);

CREATE TABLE attempts (
    entry_id INTEGER NOT NULL REFERENCES queue_entries (id),
    number INTEGER NOT NULL CHECK (number > 0),
    orchestration_id TEXT UNIQUE REFERENCES orchestrations (id), -- NULL until it is recorded
    spec_path TEXT, -- the enhanced spec; NULL for the original
    research TEXT, -- JSON: what was found out about the failures before, or why nothing was
    launches INTEGER NOT NULL DEFAULT 0, -- how often its launch was begun
    active_ms INTEGER NOT NULL DEFAULT 0,
    counted_at INTEGER NOT NULL, -- until when active_ms counts
    over_budget INTEGER NOT NULL DEFAULT 0 CHECK (over_budget IN (0, 1)),
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    closed_at INTEGER, -- when its team's processes were ended
    outcome TEXT CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'deferred')),
    reason TEXT,
    PRIMARY KEY (entry_id, number),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT;
CREATE UNIQUE INDEX one_open_attempt ON attempts (entry_id) WHERE outcome IS NULL;

CREATE TABLE queue_switch (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    paused_at INTEGER -- NULL when the queue drains
) STRICT;
INSERT INTO queue_switch (id) VALUES (1);

CREATE TABLE notices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'sent', 'failed', 'dropped')),
    not_before INTEGER NOT NULL, -- the earliest of its dispatches
    reason TEXT,
    queued_at INTEGER NOT NULL,
    sent_at INTEGER -- when the first address took it
) STRICT;
CREATE INDEX due_notices ON notices (not_before) WHERE status = 'queued';

CREATE TABLE dispatches ( -- a notice to one address
    notice_id INTEGER NOT NULL REFERENCES notices (id) ON DELETE CASCADE,
    address TEXT NOT NULL, -- a digest of the URL, which holds secrets
    status TEXT NOT NULL CHECK (status IN ('queued', 'sent', 'failed', 'dropped')),
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL,
    reason TEXT,
    sent_at INTEGER, -- the same for what went as one digest
    PRIMARY KEY (notice_id, address)
) STRICT;
CREATE INDEX waiting_dispatches ON dispatches (address, not_before) WHERE status = 'queued';
CREATE INDEX sent_dispatches ON dispatches (address, sent_at) WHERE status = 'sent';

CREATE TABLE limits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    config_dir TEXT NOT NULL, -- of the account
    agent_id INTEGER REFERENCES agents (id), -- NULL when it covers the whole account
    kind TEXT NOT NULL CHECK (kind IN ('five_hour', 'weekly', 'spend', 'overloaded', 'login')),
    source TEXT NOT NULL CHECK (source IN ('hook', 'transcript', 'screen')),
    said TEXT NOT NULL,
    resets_at INTEGER,
    look_at INTEGER, -- when one agent tries; NULL when a person has to do something first
    refused_by INTEGER NOT NULL REFERENCES agents (id),
    refused_at INTEGER NOT NULL, -- the last time
    began_at INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, -- those that were refused
    trier_id INTEGER REFERENCES agents (id), -- the agent that goes first, and since when, both or none
    tried_at INTEGER,
    over_at INTEGER, -- from then on the others go on
    ended_at INTEGER, -- when the last of them did
    CHECK ((trier_id IS NULL) = (tried_at IS NULL)),
    CHECK ((agent_id IS NOT NULL) = (kind = 'overloaded'))
) STRICT;
CREATE UNIQUE INDEX one_limit_of_account ON limits (config_dir) WHERE agent_id IS NULL AND ended_at IS NULL;
CREATE UNIQUE INDEX one_limit_of_agent ON limits (agent_id) WHERE ended_at IS NULL;

CREATE TABLE limited_agents ( -- what a limit means for one agent; an agent that it only holds has no row
    limit_id INTEGER NOT NULL REFERENCES limits (id),
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    epoch INTEGER NOT NULL,
    cut_off_at INTEGER, -- when its turn was refused
    went_on_at INTEGER, -- when it took up its work again, by itself or by a person's hand
    note_id INTEGER REFERENCES messages (id), -- what told it to
    released_at INTEGER, -- from then on the limit does not hold it
    PRIMARY KEY (limit_id, agent_id)
) STRICT;

CREATE TABLE ping ( -- of the dead man's switch
    id INTEGER PRIMARY KEY CHECK (id = 1),
    wanted_at INTEGER, -- when the daemon last found itself well
    pinged_at INTEGER, -- when the address last answered well
    failures INTEGER NOT NULL DEFAULT 0, -- since then
    reason TEXT
) STRICT;
INSERT INTO ping (id) VALUES (1);

CREATE TABLE lanes ( -- from the role whose commits are told to the role that takes them on
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    to_agent_id INTEGER NOT NULL REFERENCES agents (id),
    told TEXT NOT NULL, -- the commit that the taker was told of last
    before TEXT NOT NULL, -- and the one before that
    moved_at INTEGER, -- when the branch last moved; NULL when all was told
    message_id INTEGER REFERENCES messages (id), -- the last that told
    PRIMARY KEY (agent_id, to_agent_id)
) STRICT;
CREATE INDEX moved_lanes ON lanes (moved_at) WHERE moved_at IS NOT NULL;

CREATE TABLE preparations ( -- of worktrees: files copied, setup run
    agent_id INTEGER PRIMARY KEY REFERENCES agents (id),
    prepared_at INTEGER NOT NULL
) STRICT;

CREATE TABLE leases ( -- what only one agent of all can have
    kind TEXT NOT NULL CHECK (kind IN ('port', 'database')),
    value TEXT NOT NULL,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    variable TEXT NOT NULL,
    PRIMARY KEY (kind, value),
    UNIQUE (agent_id, variable)
) STRICT;

CREATE TABLE worktree_looks ( -- the last look at an agent's worktree, to keep what it holds
    agent_id INTEGER PRIMARY KEY REFERENCES agents (id),
    looked_at INTEGER NOT NULL,
    head TEXT,
    uncommitted_since INTEGER, -- NULL when all was committed
    failure TEXT -- why nothing could be kept
) STRICT;

CREATE TABLE snapshot_pruning (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    pruned_at INTEGER
) STRICT;
INSERT INTO snapshot_pruning (id) VALUES (1);

CREATE TABLE radar_looks ( -- the last look at an agent's worktree, to compare it with the others
    agent_id INTEGER PRIMARY KEY REFERENCES agents (id),
    looked_at INTEGER NOT NULL,
    stamp TEXT, -- of all that git's status says; NULL when it could not be looked at
    head TEXT,
    tree TEXT, -- NULL when all was committed
    failure TEXT,
    CHECK ((stamp IS NULL) = (head IS NULL) AND (stamp IS NULL) = (failure IS NOT NULL))
) STRICT;

CREATE TABLE overlaps ( -- two agents of a team, and the files in which their worktrees could not be merged
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    other_id INTEGER NOT NULL REFERENCES agents (id),
    compared TEXT NOT NULL, -- what was compared: HEAD and tree of both
    files TEXT NOT NULL, -- JSON
    told TEXT NOT NULL, -- JSON: of which files both have heard since it came up
    since INTEGER, -- NULL while there is none
    PRIMARY KEY (agent_id, other_id),
    CHECK (agent_id < other_id)
) STRICT;

CREATE TABLE radar (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    swept_at INTEGER, -- when the last round began
    off TEXT -- why it cannot look; NULL when it can
) STRICT;
INSERT INTO radar (id) VALUES (1);

CREATE TABLE candidates ( -- commits that agents have offered to the merge hub
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestration_id TEXT NOT NULL REFERENCES orchestrations (id),
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    head TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN
        ('queued', 'merging', 'merged', 'conflict', 'red', 'superseded', 'withdrawn')),
    tries INTEGER NOT NULL, -- conflicts of its agent since it was last merged
    reason TEXT,
    log TEXT,
    offered_at INTEGER NOT NULL,
    settled_at INTEGER,
    CHECK ((settled_at IS NULL) = (status IN ('queued', 'merging')))
) STRICT;
CREATE UNIQUE INDEX one_open_candidate ON candidates (agent_id) WHERE status IN ('queued', 'merging');
CREATE INDEX open_candidates ON candidates (orchestration_id, id) WHERE status IN ('queued', 'merging');
CREATE INDEX candidates_of_agent ON candidates (agent_id, id);

CREATE TABLE integrations ( -- of each team that has offered something
    orchestration_id TEXT PRIMARY KEY REFERENCES orchestrations (id),
    failures INTEGER NOT NULL DEFAULT 0, -- of the errand, since it last came to its end
    not_before INTEGER NOT NULL,
    trouble TEXT, -- why it did not come to its end
    delivery TEXT NOT NULL CHECK (delivery IN ('not_yet', 'due', 'delivered', 'kept_back')),
    wanted TEXT, -- where the starting branch is moved to, and from
    before TEXT,
    tag TEXT,
    outcome TEXT,
    pull_request TEXT
) STRICT;
CREATE INDEX unfinished_integrations ON integrations (orchestration_id) WHERE delivery = 'due' OR failures > 0;

CREATE TABLE transcript_offsets ( -- how far agents' transcripts have been counted
    path TEXT PRIMARY KEY,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    is_helper INTEGER NOT NULL CHECK (is_helper IN (0, 1)),
    inode INTEGER NOT NULL,
    modified INTEGER NOT NULL, -- nanoseconds
    size INTEGER NOT NULL, -- up to where it was looked at
    offset INTEGER NOT NULL, -- up to where it was counted: the end of a line
    ending INTEGER NOT NULL, -- a checksum of what stands right before that
    found_bytes INTEGER NOT NULL, -- how long it was when it was begun with
    is_supervision INTEGER NOT NULL CHECK (is_supervision IN (0, 1)), -- the turn that stands there
    is_answered INTEGER NOT NULL CHECK (is_answered IN (0, 1)), -- whether that turn has an answer
    turns TEXT NOT NULL, -- JSON: the last prompts by their ids, and whether each began supervision
    skipped INTEGER NOT NULL DEFAULT 0, -- lines that could not be counted
    summaries INTEGER NOT NULL DEFAULT 0 -- of the conversation; what they used stands nowhere
) STRICT;
CREATE INDEX transcripts_of_agent ON transcript_offsets (agent_id);

CREATE TABLE spending ( -- what was used within a quarter of an hour
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    quarter INTEGER NOT NULL, -- its beginning
    model TEXT NOT NULL,
    above INTEGER NOT NULL, -- how long a prompt has to be that costs as much
    is_fast INTEGER NOT NULL CHECK (is_fast IN (0, 1)),
    is_us INTEGER NOT NULL CHECK (is_us IN (0, 1)),
    is_supervision INTEGER NOT NULL CHECK (is_supervision IN (0, 1)),
    is_helper INTEGER NOT NULL CHECK (is_helper IN (0, 1)),
    answers INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    thinking INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    PRIMARY KEY (agent_id, quarter, model, above, is_fast, is_us, is_supervision, is_helper)
) STRICT, WITHOUT ROWID;

CREATE TABLE spending_days ( -- the same, added up by days of UTC, in which prices hold
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    day INTEGER NOT NULL, -- its beginning
    model TEXT NOT NULL,
    above INTEGER NOT NULL,
    is_fast INTEGER NOT NULL,
    is_us INTEGER NOT NULL,
    is_supervision INTEGER NOT NULL,
    is_helper INTEGER NOT NULL,
    answers INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    thinking INTEGER NOT NULL,
    web_searches INTEGER NOT NULL,
    PRIMARY KEY (agent_id, day, model, above, is_fast, is_us, is_supervision, is_helper)
) STRICT, WITHOUT ROWID;

CREATE TABLE counted_answers ( -- of the last weeks, so that no answer is counted twice
    digest INTEGER PRIMARY KEY,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    quarter INTEGER NOT NULL,
    model TEXT NOT NULL,
    is_fast INTEGER NOT NULL,
    is_us INTEGER NOT NULL,
    is_supervision INTEGER NOT NULL,
    is_helper INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    thinking INTEGER NOT NULL,
    web_searches INTEGER NOT NULL
) STRICT;
CREATE INDEX old_answers ON counted_answers (quarter);

CREATE TABLE budgets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestration_id TEXT NOT NULL REFERENCES orchestrations (id),
    role TEXT, -- NULL for the whole team
    per TEXT NOT NULL CHECK (per IN ('orchestration', 'day')),
    unit TEXT NOT NULL CHECK (unit IN ('usd', 'tokens')),
    amount REAL NOT NULL CHECK (amount > 0),
    extra REAL NOT NULL DEFAULT 0, -- added for one period
    extra_period INTEGER NOT NULL DEFAULT 0,
    period INTEGER NOT NULL, -- the beginning of the day that the status is about; 0 for the whole
    status TEXT NOT NULL CHECK (status IN ('open', 'warned', 'spent', 'paused')),
    changed_at INTEGER NOT NULL,
    pause_at INTEGER,
    settled_at INTEGER, -- when those whom it pauses had stopped
    CHECK ((pause_at IS NOT NULL) = (status = 'spent'))
) STRICT;
CREATE UNIQUE INDEX one_budget ON budgets (orchestration_id, coalesce(role, ''), per, unit);
CREATE INDEX holding_budgets ON budgets (orchestration_id) WHERE status IN ('spent', 'paused');

CREATE TABLE budget_stops ( -- who was stopped by a budget, and has not gone on
    agent_id INTEGER PRIMARY KEY REFERENCES agents (id),
    stopped_at INTEGER NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('interrupted', 'ended'))
) STRICT;

CREATE TABLE insights ( -- what a team has learned, for the next
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT, -- NULL: for all of them
    text TEXT NOT NULL,
    tags TEXT NOT NULL,
    author TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    withdrawn_at INTEGER
) STRICT;
CREATE UNIQUE INDEX one_insight ON insights (coalesce(project, ''), text) WHERE withdrawn_at IS NULL;
CREATE VIRTUAL TABLE insight_words USING fts5 (text, tags);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    orchestration_id TEXT,
    agent_id INTEGER,
    message_id INTEGER,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_orchestration ON events (orchestration_id, id);
CREATE INDEX events_of_message ON events (message_id, id) WHERE message_id IS NOT NULL;
CREATE INDEX events_of_check_ins ON events (at) WHERE kind IN ('check_in.fired', 'check_in.skipped', 'check_in.missed');
"""

#: Migration number N brings the database from user_version N-1 to N; a released one is never edited.
MIGRATIONS = (_FIRST,)


def connect(home: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the store of a state home, creating or migrating it. Raises `Unavailable` when it cannot be used.

    WAL, and synchronous=FULL: a power cut loses no committed message. That costs 0.3 ms a write on the
    machine of docs/decisions/store.md, and no part of this system writes a thousand times a second.
    `read_only` is for one look: it changes no file, not even those that SQLite keeps beside the database.
    """
    path = home / "orchestrator.db"
    try:
        if read_only:
            db = _open_read_only(path)
        else:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            db = _open(str(path))
        if _version(db) < len(MIGRATIONS) and not read_only:
            _migrate(db, path)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"the store {path} cannot be used: {error}", hint=f"check the permissions and the disk of {home}"
        ) from error
    if _version(db) > len(MIGRATIONS):
        raise Unavailable(
            f"the store {path} was written by a newer version of this toolkit", hint="update the checkout"
        )
    return db


def _open(name: str, *, uri: bool = False) -> sqlite3.Connection:
    # isolation_level None: transactions are the explicit ones of writing().
    db = sqlite3.connect(name, uri=uri, isolation_level=None, timeout=10.0, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA synchronous = FULL")
    return db


#: A log that holds only this is left by a writer that was killed before its first page. SQLite 3.40 waits for ten
#: seconds over it and then says "locking protocol".
_LOG_HEADER_BYTES = 32
#: A writer that comes or goes may take the files away between our look at them and the opening.
_TRIES = 20


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database without changing a file.

    Plain mode=ro is not enough, measured with SQLite 3.40: it writes to the shared-memory file that is there, and
    makes one that is not.
    """
    for left in reversed(range(_TRIES)):
        try:
            db = _open_as_it_lies(path)
            _version(db)  # only now is the log opened
        except (sqlite3.OperationalError, FileNotFoundError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN)
            if not left or not path.exists() or code & 0xFF != sqlite3.SQLITE_CANTOPEN:
                raise
        else:
            return db
    raise AssertionError  # the last try returns or raises


def _open_as_it_lies(path: Path) -> sqlite3.Connection:
    log, shared = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    if not log.exists() or log.stat().st_size <= _LOG_HEADER_BYTES:  # all that is committed is in the one file
        return _open(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    if shared.exists():  # somebody writes now, or was killed: then SQLite reads the log into its own memory
        return _open(f"{path.as_uri()}?mode=ro&readonly_shm=1", uri=True)
    return _open_copy(path, log)


def _open_copy(*files: Path) -> sqlite3.Connection:
    """A log without its shared memory: nobody has it open, as after a restore from a backup."""
    import shutil  # noqa: PLC0415 - this is rare
    import tempfile  # noqa: PLC0415 - the same

    with tempfile.TemporaryDirectory(prefix="tmux-orchestrator-") as folder:
        for file in files:
            shutil.copyfile(file, Path(folder) / file.name)
        db = _open(str(Path(folder) / files[0].name))
        db.execute("PRAGMA query_only = ON")
        _version(db)  # it holds the files from now on, whatever becomes of their names
        return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    path.chmod(0o600)
    db.execute("PRAGMA journal_mode = WAL")
    with writing(db):
        # Read again inside the transaction: another process may have migrated meanwhile.
        for number in range(_version(db), len(MIGRATIONS)):
            for statement in MIGRATIONS[number].split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")


@contextlib.contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One short write transaction. Nested blocks join the outer one. Raises `Unavailable` when the disk is full."""
    if db.in_transaction:
        yield
        return
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        raise _not_written(db, error) from error
    try:
        yield
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        _roll_back(db)
        raise _not_written(db, error) from error
    except BaseException:
        _roll_back(db)
        raise


def _not_written(db: sqlite3.Connection, error: sqlite3.Error) -> Unavailable:
    path = db.execute("PRAGMA database_list").fetchone()[2]
    return Unavailable(f"the store {path} cannot be written: {error}", hint="check the disk, then try again")


#: What SQLite says of the disk, of locks and of damage. Anything else that it says is a bug of ours.
_OUTSIDE = frozenset(
    (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB),
    )
)


def trouble(error: sqlite3.Error, home: Path) -> Unavailable | None:
    """The error that a person can act on, when SQLite failed for what is outside of us; None for a bug."""
    # The lowest byte is the kind, the others say more of it.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _OUTSIDE:
        return None
    path = home / "orchestrator.db"
    return Unavailable(f"the store {path} cannot be used: {error}", hint=f"check the disk and {path}, then try again")


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:  # a full disk may have rolled back already
        db.execute("ROLLBACK")


def record(
    db: sqlite3.Connection,
    event: str,
    /,
    *,
    now: int,
    orchestration: str | None = None,
    agent: int | None = None,
    message: int | None = None,
    **data: object,
) -> None:
    """Append an event; call it inside the transaction of the change that it tells of."""
    db.execute(
        "INSERT INTO events (at, kind, orchestration_id, agent_id, message_id, data) VALUES (?, ?, ?, ?, ?, ?)",
        (now, event, orchestration, agent, message, json.dumps(data, ensure_ascii=False, default=str)),
    )


def events(
    db: sqlite3.Connection,
    *,
    orchestration: str | None = None,
    message: int | None = None,
    kind: str | None = None,
    since: int = 0,
    after: int = 0,
    limit: int = 1000,
) -> list[Event]:
    """Events in order of their ids, after an id and a time; of one orchestration, message or kind, when named."""
    named = {"orchestration_id": orchestration, "message_id": message, "kind": kind}
    wanted = {column: value for column, value in named.items() if value is not None}
    # Only what is named, so that its index serves: a team that runs for weeks has 100,000 events.
    clauses = "".join(f" AND {column} = ?" for column in wanted)
    rows = db.execute(
        f"SELECT * FROM events WHERE id > ? AND at >= ?{clauses} ORDER BY id LIMIT ?",
        (after, since, *wanted.values(), limit),
    )
    return [_event(row) for row in rows]


def last_event(db: sqlite3.Connection, *kinds: str, orchestration: str, agent: int | None = None) -> Event | None:
    """The newest event of these kinds in an orchestration, or of one agent in it; None when there is none."""
    marks = ", ".join("?" * len(kinds))
    row = db.execute(
        f"SELECT * FROM events WHERE orchestration_id = ? AND kind IN ({marks}) AND (? IS NULL OR agent_id = ?)"
        " ORDER BY id DESC LIMIT 1",
        (orchestration, *kinds, agent, agent),
    ).fetchone()
    return _event(row) if row else None


def _event(row: sqlite3.Row) -> Event:
    return Event(
        id=row["id"],
        at=row["at"],
        kind=row["kind"],
        orchestration_id=row["orchestration_id"],
        agent_id=row["agent_id"],
        message_id=row["message_id"],
        data=json.loads(row["data"]),
    )


def newest_event(db: sqlite3.Connection) -> int:
    """The id of the newest event; 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def only(row: sqlite3.Row | None, sentence: str) -> sqlite3.Row:
    """A row that must be there: its absence is a bug and not an answer."""
    if row is None:
        raise OrchestratorError(sentence)
    return row
