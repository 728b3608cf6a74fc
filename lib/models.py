"""The nouns and their statuses: plain values that every other room speaks in."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from pathlib import Path

from lib.records import dataclass


class OrchestrationStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    NEEDS_ATTENTION = "needs_attention"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


#: Statuses in which an orchestration owns its tmux session; at most one per project.
LIVE = (
    OrchestrationStatus.STARTING,
    OrchestrationStatus.RUNNING,
    OrchestrationStatus.PAUSED,
    OrchestrationStatus.NEEDS_ATTENTION,
)


class MessageStatus(StrEnum):
    QUEUED = "queued"
    PASTED = "pasted"
    SUBMITTED = "submitted"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: Statuses of a message that still has to arrive.
PENDING = (MessageStatus.QUEUED, MessageStatus.PASTED, MessageStatus.SUBMITTED)


class MessageKind(StrEnum):
    BRIEFING = "briefing"
    MESSAGE = "message"
    COPY = "copy"
    CHECK_IN = "check_in"
    REPORT = "report"
    NOTICE = "notice"
    DIGEST = "digest"
    COMMAND = "command"


class Priority(IntEnum):
    """Which message goes first. HIGH and above know no rate; EMERGENCY also goes in between two tool calls."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    EMERGENCY = 3


class CheckInStatus(StrEnum):
    SCHEDULED = "scheduled"
    FIRED = "fired"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    DEAD = "dead"


class EntryStatus(StrEnum):
    """Of a spec in the queue; `failed` waits for its next attempt, `abandoned` has had its last."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"


#: Statuses of an entry that has still something to do.
UNFINISHED = (EntryStatus.QUEUED, EntryStatus.RUNNING, EntryStatus.FAILED)


class AttemptOutcome(StrEnum):
    """How an attempt ended; `deferred` is no failure: what it needs was not to be had."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEFERRED = "deferred"


class NoticeStatus(StrEnum):
    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"


class CandidateStatus(StrEnum):
    """Of a commit that an agent has offered; `conflict` and `red` went back to it."""

    QUEUED = "queued"
    MERGING = "merging"
    MERGED = "merged"
    CONFLICT = "conflict"
    RED = "red"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"


class CriterionState(StrEnum):
    """Of a criterion, by what is known of it now."""

    OPEN = "open"
    HOLDS = "holds"
    FAILS = "fails"
    CLOSED = "closed by hand"


#: Statuses of a candidate that is still to be merged.
OFFERED = (CandidateStatus.QUEUED, CandidateStatus.MERGING)
#: Statuses of a candidate that its author has to do something about.
WENT_BACK = (CandidateStatus.CONFLICT, CandidateStatus.RED)


class DeliveryStatus(StrEnum):
    """Of a team's work on its way to the starting branch; `kept_back` is a person's to decide."""

    NOT_YET = "not_yet"
    DUE = "due"
    DELIVERED = "delivered"
    KEPT_BACK = "kept_back"


#: What an entry's priority may be, and its budget in minutes.
PRIORITIES = (-1000, 1000)
BUDGET_MINUTES = (1, 1_000_000)

#: What notices tell of, in the words by which a person chooses (setting `notify.events`).
NOTICE_KINDS = ("completed", "failed", "needs_attention", "stuck", "abandoned", "batch", "limit", "budget")


class BudgetPer(StrEnum):
    """What a budget is for: the whole of an orchestration, or each day of it anew.

    `ACCOUNT_DAY` counts what all teams of the account have spent in a day of UTC, in a fleet on all hosts.
    """

    ORCHESTRATION = "orchestration"
    DAY = "day"
    ACCOUNT_DAY = "account-day"


class BudgetUnit(StrEnum):
    USD = "usd"
    TOKENS = "tokens"


class BudgetStatus(StrEnum):
    """Of a budget in its period; since `spent` the work is to be wrapped up, `paused` holds all of it."""

    OPEN = "open"
    WARNED = "warned"
    SPENT = "spent"
    PAUSED = "paused"


class CatchUp(StrEnum):
    """What becomes of a recurring check-in's occurrences that were missed."""

    ONCE = "once"
    SKIP = "skip"
    ALL = "all"


class AuthorizationStatus(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    REFUSED = "refused"
    ESCALATED = "escalated"
    EXPIRED = "expired"


class LimitKind(StrEnum):
    """What limits an agent. Overloaded is the service, for one agent; the others are the account, for all of it."""

    FIVE_HOUR = "five_hour"
    WEEKLY = "weekly"
    SPEND = "spend"
    OVERLOADED = "overloaded"
    LOGIN = "login"


class LimitSource(StrEnum):
    """Where a limit was read."""

    HOOK = "hook"
    TRANSCRIPT = "transcript"
    SCREEN = "screen"
    FLEET = "fleet"


class AgentState(StrEnum):
    """What an agent does right now: observed when asked, never stored."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    ASKING = "asking"
    LIMITED = "limited"
    GONE = "gone"


class Program(StrEnum):
    """Which program an agent runs: the real Claude Code, or the rehearsal of it."""

    CLAUDE = "claude"
    REHEARSAL = "rehearsal"


class GitMode(StrEnum):
    """Where a team's work is brought together: in the repository only, or also in the one that it was cloned from."""

    LOCAL = "local"
    GITHUB = "github"


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid.

    `started` is what the kernel says of its start: on Linux field 22 of /proc/PID/stat
    (clock ticks since boot), elsewhere the start time in milliseconds. `boot` names the boot that
    those ticks count from.
    """

    pid: int
    started: int
    boot: str


@dataclass(frozen=True)
class Orchestration:
    """One team that works one spec in one project; `unattended` when the queue has started it, and no person.

    `branches` is what the names of all its branches begin with.
    """

    id: str
    project: Path
    session: str
    spec_path: Path
    spec_title: str
    spec_text: str
    status: OrchestrationStatus
    program: Program
    config_dir: Path
    starting_branch: str | None
    starting_commit: str
    branches: str
    git_mode: GitMode
    messages_per_minute: int
    unattended: bool
    outcome: str | None
    created_at: int
    updated_at: int
    #: Since when a person has it paused, whatever its status says; None when nobody has.
    paused_at: int | None = None

    @property
    def integration_branch(self) -> str:
        """Where the work of all its roles is brought together."""
        return f"{self.branches}/integration"


@dataclass(frozen=True)
class Agent:
    """One Claude Code in one window and one worktree, holding one role.

    `epoch` grows whenever the agent's process is started anew; what an older epoch reports is
    history and is never acted on. `pane_id`, `pane_pid` and `process` are None until the window exists.
    The pane's process is the agent's own, except for a guest: a Claude Code that a person has started in a
    shell. A guest belongs to no orchestration, has no hooks of ours and no branch. An agent with a `host` lives on that
    host of the fleet: here only its name is known, for the messages to it.
    """

    id: int
    orchestration_id: str | None
    session: str
    role: str
    window: int
    program: Program
    config_dir: Path
    worktree: Path
    branch: str
    conversation_id: str
    epoch: int
    pane_id: str | None
    pane_pid: int | None
    process: Process | None
    messages_per_minute: int
    last_hook: str | None
    last_hook_at: int | None
    host: str | None = None

    @property
    def target(self) -> str:
        """How people name this agent: `webapp-impl:developer`, a guest by its window, elsewhere with its host."""
        name = f"{self.session}:{self.window if self.is_guest else self.role}"
        return f"{self.host}/{name}" if self.host else name

    @property
    def is_guest(self) -> bool:
        return self.orchestration_id is None and self.host is None


@dataclass(frozen=True)
class Message:
    """Text to one agent. Times are UTC milliseconds; `body` is what the agent gets, without its frame."""

    id: int
    agent_id: int
    sender: str
    kind: MessageKind
    priority: Priority
    body: str
    status: MessageStatus
    attempts: int
    reason: str | None
    held: bool
    carried_by: int | None
    queued_at: int
    pasted_at: int | None
    submitted_at: int | None
    acknowledged_at: int | None


@dataclass(frozen=True)
class CheckIn:
    """A note that becomes a message at `due_at` (UTC milliseconds); recurring when it has an interval or a cron line.

    `planned_at` is its place on the grid, `due_at` that and the jitter, `decided_at` when the two were decided. With
    `if_changed` it is told only when the agent has something new since `seen`.
    """

    id: int
    agent_id: int
    target: str
    note: str
    planned_at: int
    due_at: int
    decided_at: int
    interval_minutes: int | None
    cron: str | None
    catch_up: CatchUp
    deadline_minutes: int | None
    jitter_seconds: int
    if_changed: bool
    seen: str | None
    status: CheckInStatus
    attempts: int
    reason: str | None
    fired_at: int | None


@dataclass(frozen=True)
class News:
    """What an agent has not been told of: in a few words, "" when there is nothing; `seen` is all that there is now."""

    text: str
    seen: str


@dataclass(frozen=True)
class QueueEntry:
    """A spec that waits to become an orchestration. Times are UTC milliseconds.

    `spec_text` is what was there when it was added: the file may change or go meanwhile. `options` are those of a
    launch (roles, add_roles, team_type, size, plan, agent, git_mode, no_ai). `failures` counts since it was added or
    last retried by hand.
    """

    id: int
    batch_id: int
    spec_path: Path
    spec_text: str
    project: Path
    options: dict[str, object]
    tags: tuple[str, ...]
    priority: int
    budget_minutes: int | None
    status: EntryStatus
    failures: int
    not_before: int
    reason: str | None
    added_at: int
    updated_at: int

    @property
    def of_fleet(self) -> bool:
        """Whether it is an entry of the fleet's queue that this host has taken."""
        return "fleet" in self.options


@dataclass(frozen=True)
class Attempt:
    """One try of an entry. `spec_path` is the enhanced spec, None for the original.

    `active_ms` is what counts against the budget. `closed_at` is when its team's processes were ended.
    """

    entry_id: int
    number: int
    orchestration_id: str | None
    spec_path: Path | None
    research: str | None
    launches: int
    active_ms: int
    counted_at: int
    over_budget: bool
    started_at: int
    ended_at: int | None
    closed_at: int | None
    outcome: AttemptOutcome | None
    reason: str | None


@dataclass(frozen=True)
class Notice:
    """Something that a person should hear of outside of the terminal; `kind` is what they can choose by."""

    id: int
    kind: str
    title: str
    body: str
    status: NoticeStatus
    not_before: int
    reason: str | None
    queued_at: int
    sent_at: int | None


@dataclass(frozen=True)
class Candidate:
    """A commit that an agent has offered to be brought together with the others' work. Times are UTC milliseconds.

    `tries` counts the conflicts of its agent since something of it was last merged. `log` is the end of what a red
    check has printed.
    """

    id: int
    orchestration_id: str
    agent_id: int
    head: str
    status: CandidateStatus
    tries: int
    reason: str | None
    log: str | None
    offered_at: int
    settled_at: int | None


@dataclass(frozen=True)
class Integration:
    """How bringing a team's work together goes. Times are UTC milliseconds.

    `failures` counts how often the errand has begun since it last came to its end. `wanted` and `before` are where
    the starting branch is moved to and from, recorded before it is moved; `outcome` says in words what came of it.
    """

    orchestration_id: str
    failures: int
    not_before: int
    trouble: str | None
    delivery: DeliveryStatus
    wanted: str | None
    before: str | None
    tag: str | None
    outcome: str | None
    pull_request: str | None


@dataclass(frozen=True)
class Limit:
    """What the API refuses, to an account or to one agent (`agent_id`). Times are UTC milliseconds.

    `resets_at` is None when nobody has said it, or it could not be read. At `look_at` one agent tries; None when a
    person has to do something first. Since `tried_at` the agent `trier_id` does, which goes before the others; since
    `over_at` they go on, one after another. Who was refused is an agent here (`refused_by`), or one of another host of
    the fleet (`host`); `told` is what the fleet was told of it last.
    """

    id: int
    config_dir: Path
    agent_id: int | None
    kind: LimitKind
    source: LimitSource
    said: str
    resets_at: int | None
    look_at: int | None
    refused_by: int | None
    host: str | None
    refused_at: int
    began_at: int
    tries: int
    trier_id: int | None
    tried_at: int | None
    over_at: int | None
    ended_at: int | None
    told: str | None

    @property
    def gone_on_since(self) -> int | None:
        """Since when some agent goes on: a refusal after that is a new one."""
        return self.over_at if self.over_at is not None else self.tried_at

    @property
    def news(self) -> str | None:
        """What other hosts of the account have to know of it; None when they have told it themselves."""
        if self.over_at is not None:
            return "over"
        return f"{self.refused_at}/{self.resets_at}/{self.tries}" if self.host is None else None


@dataclass(frozen=True)
class Refusal:
    """That the API has refused an agent's turn: why, in its words, and until when (UTC milliseconds) if it says so."""

    kind: LimitKind
    said: str
    resets_at: int | None


@dataclass(frozen=True)
class Hold:
    """What keeps an agent from new work. `why` follows its name: `limited until 15:00`.

    `until` is the time (UTC milliseconds) at which that is expected to end, or None. `state` is what the agent is shown
    as while it does nothing.
    """

    why: str
    until: int | None
    state: AgentState = AgentState.LIMITED
    #: Whether the team may still wrap up: what the Orchestrator says and hears arrives all the same.
    lets_wrap_up: bool = False


@dataclass(frozen=True)
class Budget:
    """What an orchestration, or one role of it, may spend, in US dollars or in tokens.

    `period` is the beginning of the day that `status` is about (UTC milliseconds), 0 for the whole. `extra` was added
    for the period `extra_period`. At `pause_at` what is spent becomes paused; at `settled_at` all had stopped.
    """

    id: int
    orchestration_id: str
    role: str | None
    per: BudgetPer
    unit: BudgetUnit
    amount: float
    extra: float
    extra_period: int
    period: int
    status: BudgetStatus
    changed_at: int
    pause_at: int | None
    settled_at: int | None

    @property
    def limit(self) -> float:
        """What may be spent in its period."""
        return self.amount + (self.extra if self.extra_period == self.period else 0.0)


@dataclass(frozen=True)
class Usage:
    """What answers of a model have used, in tokens; `thinking` is a part of `output`.

    `input` is what of the prompt neither came from the cache nor went to it. Writes to the cache are kept for five
    minutes or for an hour.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    thinking: int = 0
    web_searches: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(one + more for one, more in zip(self.counts, other.counts, strict=True)))

    def __neg__(self) -> Usage:
        return Usage(*(-one for one in self.counts))

    def at_least(self, other: Usage) -> Usage:
        """The larger count of each kind."""
        return Usage(*map(max, self.counts, other.counts))

    @property
    def counts(self) -> tuple[int, ...]:
        """The counts in the order of the fields."""
        return (
            *(self.input, self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h),
            *(self.thinking, self.web_searches),
        )

    @property
    def prompt(self) -> int:
        """The tokens that went to the model."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def tokens(self) -> int:
        """All tokens, each once."""
        return self.prompt + self.output


@dataclass(frozen=True)
class Sort:
    """What the price of an answer depends on, beside its tokens.

    `above` is the largest of `PROMPT_STEPS` that its prompt was longer than; `at` a time (UTC milliseconds).
    """

    model: str
    at: int
    above: int = 0
    is_fast: bool = False
    is_us: bool = False


#: Lengths of prompts, in tokens, above which a model may cost more.
PROMPT_STEPS = (0, 100_000, 200_000)


@dataclass(frozen=True)
class Dependency:
    """A role that waits for another role's completion; `message_id` is the one notice that told it."""

    orchestration_id: str
    role: str
    on_role: str
    resolved_at: int | None
    message_id: int | None


@dataclass(frozen=True)
class Authorization:
    """What an agent asked to be allowed. Until `due_at` (UTC milliseconds) somebody may answer."""

    id: int
    requester_id: int
    target_id: int
    what: str
    status: AuthorizationStatus
    period_minutes: int
    requested_at: int
    due_at: int
    decided_by: str | None
    decided_at: int | None
    reason: str | None


@dataclass(frozen=True)
class Event:
    """Something that happened. Append-only; the history that every view reads."""

    id: int
    at: int
    kind: str
    orchestration_id: str | None
    agent_id: int | None
    message_id: int | None
    data: dict[str, object]
