"""What each role does in a rehearsal: a message and what is known go in, a list of steps comes out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field, replace

from lib.records import dataclass

#: An assistant line of the transcript that begins so says that our own completion is reported.
REPORTED = "Reported completion"
#: An assistant line of the transcript that begins so says that the orchestrator knows of a failure.
TOLD_FAILURE = "Told the orchestrator"

NOTICE = "Written by a rehearsal agent, not by a real Claude Code."
FOLDER = "rehearsal"
CHECK = f"{FOLDER}/check.sh"
#: A spec may be a book; a rehearsal of it has at most this many deliverables.
MOST_DELIVERABLES = 40

_FRAME = re.compile(r"\[msg (\S+) from ([^\]\s]+)\]\n(.*?)\n?\[end of msg \1\]", re.DOTALL)
_DIGEST = re.compile(r"\d+ messages have waited to be")
_DIGEST_PART = re.compile(r"^--- message (\d+) from (\S+)\n", re.MULTILINE)
_FACT = re.compile(r"^(Spec|Worktree|Branch): (.+?)\s*$", re.MULTILINE)
_MEMBER = re.compile(r"^- (\S+):([A-Za-z0-9_-]+) \(branch (\S+?)\)", re.MULTILINE)
_FATE = re.compile(r"^rehearse: (fail|hold)(?:[ \t]+(.+?))?[ \t]*$", re.MULTILINE)
_DIRECTIVE = re.compile(
    r"^rehearse: (busy|exit|ask|limit|deaf|commit|answer)(?:[ \t]+(\d+(?:\.\d+)?))?[ \t]*$", re.MULTILINE
)
_ITEM = re.compile(r"^( {0,3})(?:[-*+]|\d+[.)])\s+(.+)$")
_CRITERIA = re.compile(
    r"^[\s#*_]*(success criteria|acceptance criteria|definition of done)\b", re.IGNORECASE | re.MULTILINE
)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s|^[A-Z][A-Z0-9 _/-]{2,}:")


@dataclass(frozen=True)
class Incoming:
    """One message to this agent; `id` is None for text that somebody typed without a frame."""

    id: str | None
    sender: str
    body: str


@dataclass(frozen=True)
class Directive:
    """An order for the stand-in itself: busy SECONDS, exit CODE, ask, limit MINUTES, deaf KEYS, commit NUMBER, answer.

    `answer` sends a message to whoever has sent this one. After `deaf` it does not hear the next Enter, so often. A
    `commit` is work like any other: it is done once, also by one that was killed at it.
    """

    verb: str
    amount: float


@dataclass(frozen=True)
class Member:
    target: str
    role: str
    branch: str


@dataclass(frozen=True)
class Facts:
    """What an agent knows: rebuilt from its transcript, so that a resumed agent knows it again."""

    role: str
    spec: str | None = None
    worktree: str | None = None
    branch: str | None = None
    team: tuple[Member, ...] = ()
    seen: frozenset[str] = field(default_factory=frozenset)
    handed_over: frozenset[str] = field(default_factory=frozenset)
    reported: frozenset[str] = field(default_factory=frozenset)
    completed: bool = False
    told_failure: bool = False

    @property
    def briefed(self) -> bool:
        return self.branch is not None

    @property
    def others(self) -> tuple[Member, ...]:
        return tuple(member for member in self.team if member.role != self.role)

    def member(self, *roles: str) -> Member | None:
        """The first of these roles that is in the team besides ourselves."""
        return next((one for role in roles for one in self.others if one.role == role), None)


@dataclass(frozen=True)
class Say:
    """One line in the log."""

    text: str


@dataclass(frozen=True)
class Look:
    """Make sure that we stand in our own worktree and on our own branch before git is touched."""

    worktree: str | None
    branch: str


@dataclass(frozen=True)
class Write:
    """One file of our own, relative to the worktree."""

    path: str
    text: str


@dataclass(frozen=True)
class Commit:
    """Commit these paths, and nothing else; nothing to do when they are as committed."""

    subject: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """Merge another member's branch into our own; a conflict is undone and told to its author."""

    branch: str
    author: Member


@dataclass(frozen=True)
class Check:
    """Run rehearsal/check.sh; `needed` says whether its absence is a failure."""

    needed: bool


@dataclass(frozen=True)
class Tell:
    """Send a message through the door; {commit} becomes our newest commit, {check} the last result."""

    target: str
    text: str


@dataclass(frozen=True)
class Report:
    """Report our own completion through the door; the same placeholders as `Tell`."""

    text: str


@dataclass(frozen=True)
class CloseCriteria:
    """Close through the door what criteria there are without a check."""

    reason: str


@dataclass(frozen=True)
class GiveUp:
    """Report through the door that the whole cannot be done."""

    text: str


Step = Say | Look | Write | Commit | Merge | Check | Tell | Report | CloseCriteria | GiveUp


def read_messages(text: str) -> list[Incoming]:
    """The framed messages of one prompt; text without a frame counts as one message from the user."""
    framed = [Incoming(one[1], one[2], one[3]) for one in _FRAME.finditer(text)]
    return [part for message in framed for part in _parts(message)] or [Incoming(None, "user", text)]


def _parts(message: Incoming) -> list[Incoming]:
    """The messages that a digest carries; any other message is its own only part."""
    heads = list(_DIGEST_PART.finditer(message.body))
    if not heads or not _DIGEST.match(message.body):
        return [message]
    ends = [head.start() for head in heads[1:]] + [len(message.body)]
    return [
        Incoming(head[1], head[2], message.body[head.end() : end].strip("\n"))
        for head, end in zip(heads, ends, strict=True)
    ]


def directives(body: str) -> list[Directive]:
    return [Directive(one[1], float(one[2] or 0)) for one in _DIRECTIVE.finditer(body)]


def is_briefing(message: Incoming) -> bool:
    """A briefing names all three: the spec, our worktree and our branch."""
    return len(_facts_named(message)) == 3


def _facts_named(message: Incoming) -> dict[str, str]:
    """The first line of each kind counts: a spec quoted further down may hold lines of the same form."""
    found = list(_FACT.finditer(message.body))
    return {one[1]: one[2] for one in reversed(found)}


def is_report(message: Incoming) -> bool:
    return message.body.lstrip().startswith("Completion report")


def is_refusal(message: Incoming) -> bool:
    """Whether the checks of the criteria have decided against our report."""
    return message.sender == "criteria"


def is_hand_over(message: Incoming) -> bool:
    return message.body.startswith(f"Rehearsal hand-over from {message.sender}:")


def learn(facts: Facts, message: Incoming) -> Facts:
    """What is known once this message has been read."""
    if message.id:
        facts = replace(facts, seen=facts.seen | {message.id})
    if is_briefing(message):
        named = _facts_named(message)
        team = tuple(Member(f"{one[1]}:{one[2]}", one[2], one[3]) for one in _MEMBER.finditer(message.body))
        facts = replace(facts, spec=named["Spec"], worktree=named["Worktree"], branch=named["Branch"], team=team)
    if is_report(message):
        facts = replace(facts, reported=facts.reported | {message.sender})
    if is_hand_over(message):
        facts = replace(facts, handed_over=facts.handed_over | {message.sender})
    return facts


def recall(facts: Facts, own_line: str) -> Facts:
    """What an assistant line of our own transcript tells about what we have done."""
    if own_line.startswith(REPORTED):
        return replace(facts, completed=True)
    if own_line.startswith(TOLD_FAILURE):
        return replace(facts, told_failure=True)
    return facts


def deliverables(spec: str) -> list[str]:
    """The list items below the spec's DELIVERABLES heading, or its title when it has none."""
    found: list[str] = []
    inside = False
    for line in spec.splitlines():
        item = _ITEM.match(line)
        if re.match(r"^[\s#*_]*deliverables\b[\s:*_]*$", line, re.IGNORECASE):
            inside = True
        elif inside and item:
            found.append(item[2].strip())
        elif inside and found and line[:1] == " " and line.strip():
            found[-1] += " " + re.sub(r"^[-*+]\s+", "", line.strip())
        elif inside and (_HEADING.match(line) or (found and line.strip())):
            break
    return found[:MOST_DELIVERABLES] or [title(spec)]


def title(spec: str) -> str:
    lines = [line.strip() for line in spec.splitlines() if line.strip()]
    headed = [line.lstrip("# ") for line in lines if line.startswith("#")]
    named = [line.partition(":")[2].strip() for line in lines if line.upper().startswith("PROJECT:")]
    return next((text for text in [*named, *headed, *lines] if text), "the spec")


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-") or "deliverable"


def files(spec: str) -> list[tuple[str, str]]:
    """Path and deliverable of each file that the developer writes for this spec."""
    return [(f"{FOLDER}/{n:02d}-{slug(text)}.md", text) for n, text in enumerate(deliverables(spec), start=1)]


def check_script(paths: list[str]) -> str:
    lines = [
        "#!/bin/sh",
        f"# {NOTICE}",
        "# Every deliverable of the rehearsal exists and is not empty.",
        "missing=0",
        *(f"[ -s {path} ] || {{ echo 'missing: {path}'; missing=1; }}" for path in paths),
        f'[ "$missing" -eq 0 ] && echo "rehearsal check passed: {len(paths)} files"',
        'exit "$missing"',
    ]
    return "\n".join(lines) + "\n"


def plan(facts: Facts, message: Incoming, read_spec: Callable[[], str]) -> list[Step]:
    """The steps that follow from `message`, which `facts` has learned already.

    `read_spec` gives the spec's text; it is called only by roles that need it, and may raise.
    """
    if facts.briefed and (ordered := [one for one in directives(message.body) if one.verb == "commit"]):
        return [_look(facts), *(step for one in ordered for step in _commit(facts, round(one.amount)))]
    if facts.briefed and any(one.verb == "answer" for one in directives(message.body)):
        return [Tell(message.sender, f"Rehearsal answer of the {facts.role} to message {message.id}.")]
    if is_briefing(message) and facts.completed:
        return [Say("Nothing is left to do here: my completion is reported.")]
    if facts.role == "orchestrator" and is_refusal(message):
        return [GiveUp("checks of the criteria fail, which a rehearsal cannot mend")]
    if facts.completed or not facts.briefed:
        return [_noted(message)]
    match facts.role:
        case "orchestrator":
            return _orchestrate(facts, message, read_spec)
        case "developer" if author := facts.member("orchestrator"):
            return _after(author, facts, message) or _develop(facts, read_spec())
        case "developer":
            return _develop(facts, read_spec()) if is_briefing(message) else [_noted(message)]
        case "tester" if author := facts.member("developer"):
            return _after(author, facts, message) or _test(facts, read_spec())
        case "testrunner" if author := facts.member("tester", "developer"):
            return _after(author, facts, message) or _run_tests(facts, read_spec())
        case _:
            return _take_a_note(facts) if is_briefing(message) else [_noted(message)]


def _commit(facts: Facts, number: int) -> list[Step]:
    path = f"{FOLDER}/commit-{number}.md"
    return [Write(path, f"{NOTICE}\nFrom the {facts.role}.\n"), Commit(f"commit {number}", (path,))]


def _noted(message: Incoming) -> Say:
    first = next((line.strip() for line in message.body.splitlines() if line.strip()), "")
    return Say(f"Noted, from {message.sender}: {first[:80]}")


def _after(author: Member, facts: Facts, message: Incoming) -> list[Step]:
    """What to do instead of our work, or nothing when it is our turn.

    It is our turn once we are briefed and the author before us has handed over, in whichever order.
    """
    if author.role in facts.handed_over and (is_briefing(message) or is_hand_over(message)):
        return []
    waiting = f"Ready. I wait for the word of the {author.role}."
    return [Say(waiting) if is_briefing(message) else _noted(message)]


def _develop(facts: Facts, spec: str) -> list[Step]:
    steps: list[Step] = [_look(facts), Say(f"Reading the spec: {title(spec)}")]
    for path, text in files(spec):
        body = f"# {text}\n\n{NOTICE}\nThe deliverable, as the spec puts it:\n\n> {text}\n"
        steps.append(Write(path, body))
        steps.append(Commit(f"write {path}", (path,)))
    return [*steps, *_hand_over(facts, "tester", "testrunner", "orchestrator"), _report(facts)]


def _test(facts: Facts, spec: str) -> list[Step]:
    return [
        _look(facts),
        *_merge(facts, "developer"),
        *_write_check(spec),
        *_hand_over(facts, "testrunner"),
        _report(facts),
    ]


def _run_tests(facts: Facts, spec: str) -> list[Step]:
    steps: list[Step] = [_look(facts), *_merge(facts, "tester", "developer")]
    if facts.member("tester") is None:
        steps += _write_check(spec)
    steps.append(Check(needed=True))
    orchestrator = facts.member("orchestrator")
    if orchestrator:
        result = f"Rehearsal result on {facts.branch} at {{commit}}: {{check}}."
        steps.append(Tell(orchestrator.target, result))
    return [*steps, _report(facts)]


def _take_a_note(facts: Facts) -> list[Step]:
    orchestrator = facts.member("orchestrator")
    path = f"{FOLDER}/{facts.role}.md"
    steps: list[Step] = [_look(facts)]
    if orchestrator:
        steps.append(Tell(orchestrator.target, f"Rehearsal: {facts.role} is ready."))
    note = f"# {facts.role}\n\n{NOTICE}\nThe {facts.role} was here, on {facts.branch}.\n"
    return [*steps, Write(path, note), Commit(f"note of the {facts.role}", (path,)), _report(facts)]


def _orchestrate(facts: Facts, message: Incoming, read_spec: Callable[[], str]) -> list[Step]:
    # A line of the spec decides how its rehearsal ends: `rehearse: fail REASON`, or never: `rehearse: hold`.
    if is_briefing(message) and (fate := _FATE.search(read_spec())):
        if fate[1] == "hold":
            return [Say("A team that waits.")]
        return [GiveUp(fate[2] or "the rehearsal was to fail")]
    if not facts.others:
        return _closing(_take_a_note(facts), read_spec()) if is_briefing(message) else [_noted(message)]
    missing = [member.role for member in facts.others if member.role not in facts.reported]
    if not missing and (is_briefing(message) or is_report(message)):
        return _closing(_bring_together(facts), read_spec())
    if is_briefing(message):
        developer = facts.member("developer")
        start = f"Rehearsal hand-over from {facts.role}: please start. The spec is {facts.spec}."
        opening = [Tell(developer.target, start)] if developer else []
        return [Say(f"A team of {len(facts.others) + 1} rehearses."), *opening]
    if is_report(message):
        return [Say(f"{message.sender} has finished. Still at work: {', '.join(missing)}.")]
    return [_noted(message)]


def _bring_together(facts: Facts) -> list[Step]:
    merges = [Merge(member.branch, member) for member in facts.others]
    report = Report(f"Rehearsal complete: everything is on {facts.branch} at {{commit}}; check: {{check}}.")
    return [_look(facts), *merges, Check(needed=False), report]


def _closing(steps: list[Step], spec: str) -> list[Step]:
    """The same steps, with what a report needs by this spec right before it, which is the last."""
    reason = "Rehearsal: nobody has looked; what was written is a placeholder"
    return [*steps[:-1], CloseCriteria(reason), steps[-1]] if _CRITERIA.search(spec) else steps


def _look(facts: Facts) -> Look:
    return Look(facts.worktree, facts.branch or "")


def _merge(facts: Facts, *authors: str) -> list[Step]:
    author = facts.member(*authors)
    return [Merge(author.branch, author)] if author else []


def _write_check(spec: str) -> list[Step]:
    script = check_script([path for path, _ in files(spec)])
    return [Write(CHECK, script), Commit("check that every deliverable is there", (CHECK,))]


def _hand_over(facts: Facts, *receivers: str) -> list[Step]:
    receiver = facts.member(*receivers)
    if receiver is None:
        return []
    words = f"Rehearsal hand-over from {facts.role}: branch {facts.branch} at commit {{commit}}."
    return [Tell(receiver.target, words)]


def _report(facts: Facts) -> Report:
    return Report(f"Rehearsal: the {facts.role} has finished; branch {facts.branch} at commit {{commit}}.")
