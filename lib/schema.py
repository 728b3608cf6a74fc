"""The schema of the store, table by table, as the migrations that lead to it."""

from __future__ import annotations

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
    source TEXT NOT NULL CHECK (source IN ('hook', 'transcript', 'screen', 'fleet')),
    said TEXT NOT NULL,
    resets_at INTEGER,
    look_at INTEGER, -- when one agent tries; NULL when a person has to do something first
    refused_by INTEGER REFERENCES agents (id),
    host TEXT, -- of the fleet, whose agent was refused; NULL: one of this machine, `refused_by`
    refused_at INTEGER NOT NULL, -- the last time; what another host has told: when that was heard
    began_at INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, -- those that were refused
    trier_id INTEGER REFERENCES agents (id), -- the agent that goes first, and since when, both or none
    tried_at INTEGER,
    over_at INTEGER, -- from then on the others go on
    ended_at INTEGER, -- when the last of them did
    told TEXT, -- what of it the fleet was told last
    CHECK ((refused_by IS NULL) = (host IS NOT NULL)),
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
    first_moved_at INTEGER, -- when it first did so after what was told
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
    per TEXT NOT NULL CHECK (per IN ('orchestration', 'day', 'account-day')),
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
    agent_id INTEGER REFERENCES agents (id), -- the author; NULL: a person
    added_at INTEGER NOT NULL,
    withdrawn_at INTEGER
) STRICT;
CREATE UNIQUE INDEX one_insight ON insights (coalesce(project, ''), text) WHERE withdrawn_at IS NULL;
CREATE VIRTUAL TABLE insight_words USING fts5 (text, tags);

CREATE TABLE bulletins ( -- what is new in one project, for another that it concerns: told there once
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT, -- whose news; NULL: an insight for all of them
    for_project TEXT NOT NULL,
    insight_id INTEGER REFERENCES insights (id),
    delivered TEXT REFERENCES orchestrations (id), -- the team whose work was delivered
    line TEXT NOT NULL, -- all of it in one line, as a briefing tells it
    made_at INTEGER NOT NULL,
    orchestration_id TEXT REFERENCES orchestrations (id), -- whose Orchestrator is told; NULL: the next one's
    message_id INTEGER REFERENCES messages (id), -- what carries it there; NULL: the briefing, which is not written yet
    CHECK ((insight_id IS NULL) != (delivered IS NULL)),
    CHECK (message_id IS NULL OR orchestration_id IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX one_bulletin ON bulletins (for_project, coalesce(insight_id, 0), coalesce(delivered, ''));
CREATE INDEX bulletins_of_team ON bulletins (orchestration_id) WHERE orchestration_id IS NOT NULL;

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

#: What the history is asked for: a stretch of time, and the last event of a kind before a time.
_TIMES = """
CREATE INDEX events_at ON events (at);
CREATE INDEX events_of_orchestration_at ON events (orchestration_id, at);
CREATE INDEX events_of_orchestration_by_kind ON events (orchestration_id, kind, at);
CREATE INDEX events_of_agent_by_kind ON events (agent_id, kind, at) WHERE agent_id IS NOT NULL;
CREATE INDEX messages_by_time ON messages (queued_at);
"""

#: What probes of Claude Code have found.
_VERDICTS = """
CREATE TABLE verdicts (
    version TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    failed TEXT NOT NULL -- JSON: the names of the checks that failed, each with what was seen; [] when all hold
) STRICT;
"""

#: What the daemon has decided, and from what; and the versions that a person wants used all the same.
_DECISIONS = """
-- Since when a person wants this version used although it has failed.
ALTER TABLE verdicts ADD COLUMN forced_at INTEGER;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    given TEXT NOT NULL, -- JSON: all that it depends on
    made TEXT NOT NULL, -- JSON: what was decided
    event_id INTEGER -- the event that tells of it; NULL when none does
) STRICT;
CREATE INDEX decisions_at ON decisions (at);
"""

#: The fleet: its hosts, what is ordered of them, this host's link to it, and what waits to be sent.
_FLEET = """
CREATE TABLE fleet_hosts (
    name TEXT PRIMARY KEY,
    record TEXT NOT NULL, -- JSON: what the host has told of itself last; {} when that cannot be read
    trouble TEXT, -- why it cannot be read
    seen_at INTEGER NOT NULL, -- when it told that, by the clock of this host
    skew_ms INTEGER NOT NULL -- how far its clock is ahead of this host's
) STRICT;
CREATE TABLE fleet_orders (
    host TEXT PRIMARY KEY,
    standing TEXT NOT NULL CHECK (standing IN ('open', 'cordoned', 'draining'))
) STRICT;
CREATE TABLE fleet_link ( -- one row
    id INTEGER PRIMARY KEY CHECK (id = 1),
    host TEXT,
    url TEXT NOT NULL,
    since INTEGER NOT NULL, -- since when it is connected, or is not
    told_at INTEGER NOT NULL, -- when the link last said so
    trouble TEXT, -- why it is not connected; NULL: it is
    hint TEXT
) STRICT;
CREATE TABLE fleet_outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    body TEXT NOT NULL, -- JSON
    queued_at INTEGER NOT NULL,
    refused_at INTEGER, -- NULL: it waits
    refusal TEXT
) STRICT;
CREATE TABLE fleet_entries ( -- the fleet's queue, as it was last heard of
    id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL, -- of the fleet's own record
    record TEXT NOT NULL, -- JSON, as hosts have it
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'abandoned', 'cancelled')),
    label TEXT NOT NULL,
    priority INTEGER NOT NULL,
    added_at INTEGER NOT NULL
) STRICT;
CREATE INDEX unfinished_fleet_entries ON fleet_entries (priority DESC, added_at) WHERE state IN ('queued', 'running');
CREATE TABLE fleet_puts ( -- what this host has put into the fleet's queue
    entry_id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    spec_path TEXT NOT NULL,
    put_at INTEGER NOT NULL,
    fetched_at INTEGER, -- when its results were brought into the project
    outcome TEXT -- what came of that
) STRICT;
CREATE TABLE fleet_bundles ( -- what of a project the fleet's store holds, each beyond those before it
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    PRIMARY KEY (project, name)
) STRICT;
CREATE TABLE fleet_leases ( -- what this host has taken of the fleet's queue
    entry_id TEXT PRIMARY KEY,
    term INTEGER NOT NULL, -- how often the entry was taken, with this time
    message INTEGER NOT NULL, -- the sequence of the queue's message
    ack TEXT NOT NULL, -- where that is acknowledged
    ack_wait_ms INTEGER NOT NULL,
    extended_at INTEGER NOT NULL, -- when it was last said that this host has it
    local_id INTEGER REFERENCES queue_entries (id), -- NULL until it is in the queue of this host
    kept_at INTEGER NOT NULL, -- when its branches were last pushed
    begins_at INTEGER NOT NULL, -- before that another host's team may be at work
    fenced_at INTEGER, -- since when its team is held, since it may be another host's
    has_paused INTEGER NOT NULL DEFAULT 0 CHECK (has_paused IN (0, 1)), -- whether that has paused the team
    ended_at INTEGER -- when this host had no part in it any more
) STRICT;
CREATE INDEX open_fleet_leases ON fleet_leases (entry_id) WHERE ended_at IS NULL;
CREATE TABLE fleet_accounts ( -- whose login the agents of a configuration folder use
    config_dir TEXT PRIMARY KEY,
    account TEXT NOT NULL
) STRICT;
CREATE TABLE fleet_limits ( -- the limit of an account as the fleet has it, and what this host makes of it
    account TEXT PRIMARY KEY,
    revision INTEGER NOT NULL, -- of the fleet's own record; 0: it has none
    record TEXT NOT NULL, -- JSON, as hosts have it; {} when there is none
    heard_at INTEGER NOT NULL, -- when this revision was, by the clock of this host
    trier_since INTEGER NOT NULL, -- since when the same host tries
    applied INTEGER NOT NULL, -- the revision that the limits of this host know of
    round INTEGER NOT NULL, -- and which of the account's refusals
    asked TEXT CHECK (asked IN ('try', 'nobody', 'pass')), -- what the scheduler wants of the link
    asked_at INTEGER
) STRICT;
CREATE TABLE fleet_totals ( -- what hosts have told of their spending
    host TEXT PRIMARY KEY,
    record TEXT NOT NULL, -- JSON; {} when it cannot be read
    trouble TEXT, -- why it cannot be read
    is_own INTEGER NOT NULL CHECK (is_own IN (0, 1)), -- whether it is this host
    heard_at INTEGER NOT NULL
) STRICT;
"""

#: Messages between agents of two hosts.
_LETTERS = """
-- The host of the fleet where the agent lives, of which only its name is known here. NULL is this one.
ALTER TABLE agents ADD COLUMN host TEXT;
CREATE UNIQUE INDEX one_agent_elsewhere ON agents (host, session, role) WHERE host IS NOT NULL;
-- What carries it to a team of that project on another host.
ALTER TABLE bulletins ADD COLUMN elsewhere_id INTEGER REFERENCES messages (id);
CREATE TABLE fleet_letters ( -- messages that have come from other hosts
    host TEXT NOT NULL, -- whose agent has written it
    key TEXT NOT NULL, -- its name there
    message_id INTEGER NOT NULL UNIQUE REFERENCES messages (id),
    told TEXT, -- what that host knows of it; NULL: only that it is here
    is_settled INTEGER NOT NULL DEFAULT 0 CHECK (is_settled IN (0, 1)), -- whether it knows the outcome
    PRIMARY KEY (host, key)
) STRICT;
CREATE INDEX unsettled_letters ON fleet_letters (message_id) WHERE is_settled = 0;
"""

#: Migration number N brings the database from user_version N-1 to N; a released one is never edited.
MIGRATIONS = (_FIRST, _TIMES, _VERDICTS, _DECISIONS, _FLEET, _LETTERS)
