"""Routing: what kind of news a message is, and whether a policy lets it go from one role to another.

Only whole words of what the sender itself asserts count. A question, a condition, a plan, a denial, a quotation and
code are not news, whatever words they hold. English only: a text in another language is plain.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any

from lib.errors import OrchestratorError
from lib.models import MessageKind
from lib.records import dataclass


class MessageClass(StrEnum):
    COMPLETION = "completion"
    DEPLOYMENT = "deployment"
    FAILURE = "failure"
    QUESTION = "question"
    PLAIN = "plain"


#: What the Orchestrator gets a copy of.
NEWS = (MessageClass.FAILURE, MessageClass.DEPLOYMENT, MessageClass.COMPLETION)


@dataclass(frozen=True)
class Classification:
    """What a message is, and the row of the tables below that says so."""

    message_class: MessageClass
    rule: str

    @property
    def is_news(self) -> bool:
        return self.message_class in NEWS


@dataclass(frozen=True)
class Row:
    """Words that make a message news. `before` and `after` are what has to stand around them, as patterns."""

    name: str
    message_class: MessageClass
    words: str
    before: str = ""
    after: str = ""


_ENDED = r"(?=[\s*]*(?:$|[^\w\s]|(?:now|and|on|in|for|with|at|since|today|but|as|after|again)\b))"
_VERSION_OR_PLACE = r"(?=.{0,60}?(?:\bv?\d+\.\d|\bv\d|\b(?:prod|production|staging|customers|users)\b))"

#: Kinds that are news, or no news, by themselves; the text of any other kind is read.
KINDS = {
    MessageKind.REPORT: MessageClass.COMPLETION,
    **dict.fromkeys(
        (
            *(MessageKind.COPY, MessageKind.BRIEFING, MessageKind.CHECK_IN, MessageKind.NOTICE),
            *(MessageKind.DIGEST, MessageKind.COMMAND),
        ),
        MessageClass.PLAIN,
    ),
}

#: The first row that fits names the class: bad news first, and a deployment that is complete is a deployment.
ROWS = (
    Row("failed", MessageClass.FAILURE, "failed|fails"),
    Row(
        *("fail", MessageClass.FAILURE, "fail"),
        before=r"\b(?:tests?|checks?|builds?|jobs?|deploys?|pipelines?|requests?|it|they|\d{1,6})(?: \w+)? ",
    ),
    Row("failing", MessageClass.FAILURE, "failing"),
    Row(
        *("failure", MessageClass.FAILURE, "failures?"),
        after=r"(?! (?:handling|modes?|cases?|paths?|rates?|messages?|counts?|states?|points?|scenarios?|injection)\b)",
    ),
    Row("crashed", MessageClass.FAILURE, "crashed|crashes|crashing"),
    Row("aborted", MessageClass.FAILURE, "aborted"),
    Row("timed-out", MessageClass.FAILURE, "timed out"),
    Row("rolled-back", MessageClass.FAILURE, "rolled back"),
    Row("broke", MessageClass.FAILURE, "broke|(?:is|are|was|were|got) (?:now )?broken"),
    Row(
        *("could-not", MessageClass.FAILURE),
        r"(?:could not|couldn't|unable to) (?:build|compile|deploy|install|start|finish|complete|merge|push|connect)",
    ),
    Row("exit-code", MessageClass.FAILURE, r"exit(?:ed)?(?: with)?(?: code| status)? [1-9]\d{0,2}"),
    Row(
        *("deployment-complete", MessageClass.DEPLOYMENT, "done|complete|completed|finished|succeeded|successful"),
        before=r"\b(?:deploy|deployment|release|rollout|roll-out)\b"
        r"(?! (?:notes?|scripts?|plans?|docs?|guides?|checklists?|config\w*|pipelines?|branch|tests?)\b).{0,60}?",
        after=_ENDED,
    ),
    Row("deployed", MessageClass.DEPLOYMENT, "(?:re-?)?deployed"),
    Row("live", MessageClass.DEPLOYMENT, "(?:is|are|went|now) live"),
    Row("rolled-out", MessageClass.DEPLOYMENT, "rolled out"),
    Row("released", MessageClass.DEPLOYMENT, "released|shipped|published", after=_VERSION_OR_PLACE),
    Row("done", MessageClass.COMPLETION, "done"),
    Row("completed", MessageClass.COMPLETION, "completed|finished"),
    # What somebody does, "you complete and push it", is the verb.
    Row("complete", MessageClass.COMPLETION, "complete", r"(?<!\bi )(?<!\byou )(?<!\bwe )(?<!\bthey )", _ENDED),
    Row("implemented", MessageClass.COMPLETION, "implemented"),
    Row("ready", MessageClass.COMPLETION, "ready for (?:review|testing|merge|merging|deployment|qa)"),
    Row("wrapped-up", MessageClass.COMPLETION, "wrapped up"),
)


@dataclass(frozen=True)
class Guard:
    """Why a word is no news where it stands. In `pattern` the word is the sign ¶.

    The pattern is looked for in the clause that the word is in and what follows it, or in the whole sentence;
    for every class, or for the named one.
    """

    name: str
    pattern: str
    whole_sentence: bool = False
    only: MessageClass | None = None


_HYPOTHESIS = r"\b(?:if|unless|whether|in case|assuming|suppose|provided)\b"
_MOMENT = (
    r"\b(?:when|whenever|once|until|till|as soon as|by the time"
    r"|after(?! (?:that|this)\b)|before (?:it|the|this|that|you|we|they|i|all|anything|everything))\b"
)
_OPENING = r"^\W*(?:(?:and|then|so|or|but) )?"
_SUBJECT = "the|a|an|it|this|that|these|those|i|we|you|they|all|any|my|our|your|everything|anything|there"

GUARDS = (
    # "is not done", "nothing failed", "hasn't crashed"
    Guard("negation", r"(?:\b(?:not(?! only)|never|no|none|nothing|nobody|neither|nor|without|hardly)\b|n't\b).*¶"),
    # "0 failed", "0 tests failed"; the 0 of "Build 0 failed" is a name
    Guard(
        "zero",
        r"(?<!build )(?<!job )(?<!step )(?<!run )(?<!attempt )(?<!stage )(?<!shard )(?<!worker )(?<!node )"
        r"(?<![\w.,:#])(?:0|zero) (?:\w+ ){0,2}¶",
        only=MessageClass.FAILURE,
    ),
    # "failures: none", "done: no"
    Guard("none after", r"¶\s*[:=]\s*(?:0|zero|none|no|nothing|false|not yet)\s*(?:[,.;!)]|$)"),
    # "failed 0 times"
    Guard("zero after", r"¶ (?:0|zero|no|nothing)\b", only=MessageClass.FAILURE),
    # "if the deploy fails"
    Guard("hypothesis", rf"{_HYPOTHESIS}(?:(?!\bbut\b).)*¶", whole_sentence=True),
    # "When it is done, tell me": the condition ends at the comma.
    Guard("moment first", rf"{_OPENING}{_MOMENT}[^,]*¶", whole_sentence=True),
    # "Tell me when it is done and deployed": it goes on to the end.
    Guard(
        *("moment last", rf"{_OPENING}(?!{_MOMENT})\w.*{_MOMENT}(?:(?!\b(?:but|however)\b).)*¶"),
        whole_sentence=True,
    ),
    # "It counts as done when the tests pass"
    Guard("condition after", r"¶ (?:when|once|if|unless|until|as soon as)\b", only=MessageClass.COMPLETION),
    # "will be done", "should have failed", "make sure it is complete", "please have it done"
    Guard(
        "plan",
        r"(?:\b(?:will|shall|should|would|must|going to|gonna|about to|supposed to|used to|expected to|ready to"
        r"|ha(?:ve|s|d) to|plan(?:s|ning)? to|hop(?:e|es|ing)|expect(?:s|ing)?|make sure|ensure|let|let's|try|trying"
        r"|please(?! (?:note|see|find|know)\b))\b|'ll\b).*¶",
    ),
    # "could be deployed", "I need it done"
    Guard(
        "wish",
        r"\b(?:(?:can|could|may|might)(?! (?:confirm|see|say|report)\b)|needs?|wants?|'d like|requires?)"
        r" (?:\w+ ){0,3}¶",
    ),
    # "to be done", "is being deployed", "get it done"
    Guard("not yet", r"\b(?:(?:to|be|being) ¶|get(?:s|ting)? (?:\w+ ){0,2}¶)"),
    # "done by noon", "done tomorrow"
    Guard("deadline", r"¶ (?:by|tomorrow|soon|later|next)\b", only=MessageClass.COMPLETION),
    # "almost done", "80% complete"
    Guard(
        *("part", r"(?:\b(?:almost|nearly|half|partly|partially|mostly)|(?<![\d.])\d{1,2}(?:\.\d+)? ?%) (?:\w+ )?¶"),
        only=MessageClass.COMPLETION,
    ),
    # "what is done so far"
    Guard("so far", r"¶ so far\b", only=MessageClass.COMPLETION),
    # "definition of done", "well done"
    Guard("phrase", r"\b(?:(?:definition|criteria|meaning|list) (?:of|for)|well|nicely) ¶"),
    # "the failed login", "a finished product": a thing, and not what became of it
    Guard("attribute", r"\b(?:the|a|an|any|each|every|these|those|your|its|previously) ¶ (?!and\b|in\b|on\b|at\b)\w"),
    # "retry failed jobs", "on failure", "a test for failed logins"
    Guard(
        *(
            "topic",
            r"\b(?:for|about|on|against|of|in case of|retry|retries|log|logs|count|counts|show|shows|rejects?) ¶",
        ),
        only=MessageClass.FAILURE,
    ),
    # "handle login failures", "stopped failing"
    Guard(
        "avoided",
        r"\b(?:handl(?:e|es|ed|ing)|simulat(?:e|es|ed|ing)|avoid(?:s|ed|ing)?|prevent(?:s|ed|ing)?|stop(?:s|ped)?"
        r"|instead of|rather than|detects?|catch(?:es)?|fix(?:es|ed)?) (?:\w+ ){0,2}¶",
        only=MessageClass.FAILURE,
    ),
    # "reply done", "mark it as done"
    Guard("mention", r"\b(?:reply|answer|respond|say|write|type|mark|call|consider|prints?|returns?) (?:\w+ ){0,3}¶"),
    # "you said it is done"
    Guard("your words", r"\byou (?:say|said|told|wrote|mean|meant|claim|claimed|reported)\b.*¶", whole_sentence=True),
    # "Is it done", "What failed": the sign of a question is often left out
    Guard(
        "asked",
        rf"{_OPENING}(?:(?:is|are|was|were|has|have|did|does|do) (?:{_SUBJECT})\b"
        r"|what|why|who|how|which|where)\b.*¶",
        whole_sentence=True,
    ),
    # "- [ ] login done"
    Guard("open box", r"^\W*\[ ?\].*¶", whole_sentence=True),
)

#: How much of a text is read, and of a sentence around a word: a longer text is an attachment, with its news on top.
_READ_CHARACTERS = 20_000
_AROUND_CHARACTERS = 300

_CODE_OR_QUOTE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|^[ \t]*>[^\n]*|\"[^\"\n]*\"|“[^“”]*”|«[^«»]*»|(?<!\w)'[^'\n]*'(?!\w)", re.DOTALL | re.M
)
#: A sentence ends with its sign, at an empty line, and before a line that begins like a new one.
_SENTENCE_END = re.compile(r"(?<=[.!?])[)\]*_]*\s+|;|\n\s*\n|\n(?=\s*(?:[-*+•] |\d+[.)] |[A-Z]|[^\w\s]))")
_CLAUSE_BREAK = re.compile(
    r"[,:()–—]| -+ |\b(?:but|however|although|though|because|since|which)\b"
    rf"|\b(?:and|while|then) (?=(?:{_SUBJECT}|its|now)\b)"
)
_QUESTION = re.compile(r"\?[!?.)\]*_\s]*$")
_RATIO = re.compile(r"\b(\d{1,6}) ?(?:/|of|out of) ?(\d{1,6})(?: \w+)?(?: (?:is|are|were))? $")


def classify(text: str, kind: MessageKind) -> Classification:
    """What a message is. Its kind decides, else the first row that fits a sentence, else whether it asks."""
    if kind in KINDS:
        return Classification(KINDS[kind], f"kind-{kind}")
    sentences = _sentences(text)
    told = [sentence for sentence in sentences if not _QUESTION.search(sentence)]
    for row in ROWS:
        if any(_tells(row, sentence) for sentence in told):
            return Classification(row.message_class, row.name)
    if len(told) < len(sentences):
        return Classification(MessageClass.QUESTION, "question")
    return Classification(MessageClass.PLAIN, "no-row")


def _sentences(text: str) -> list[str]:
    plain = _CODE_OR_QUOTE.sub("…", text[:_READ_CHARACTERS].replace("’", "'").replace("¶", " "))
    return [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(plain) if sentence.strip()]


def _tells(row: Row, sentence: str) -> bool:
    return any(_is_told(row, sentence, *found.span("word")) for found in _pattern(row).finditer(sentence))


@cache
def _pattern(row: Row) -> re.Pattern[str]:
    # A whole word is no part of a path, an address, an option, a name with dashes or a setting.
    whole = rf"(?<![\w'/@#=+.-])(?P<word>{row.words})(?!\w|[-'/@=]\w|\.\w)"
    return re.compile(f"{row.before}{whole}{row.after}", re.IGNORECASE)


def _is_told(row: Row, sentence: str, start: int, end: int) -> bool:
    before = sentence[max(0, start - _AROUND_CHARACTERS) : start]
    after = sentence[end : end + _AROUND_CHARACTERS]
    clause = before[max((found.end() for found in _CLAUSE_BREAK.finditer(before.lower())), default=0) :]
    if row.message_class is MessageClass.COMPLETION and _is_part(before):
        return False
    return not any(
        _guard(guard).search(f"{before if guard.whole_sentence else clause}¶{after}")
        for guard in GUARDS
        if guard.only in (None, row.message_class)
    )


@cache
def _guard(guard: Guard) -> re.Pattern[str]:
    return re.compile(guard.pattern, re.IGNORECASE)


def _is_part(before: str) -> bool:
    """Whether the count that stands before a word is less than the whole: `3 of 5 done`."""
    found = _RATIO.search(before)
    return found is not None and int(found[1]) < int(found[2])


# -- the policy --

ANYBODY = "*"


class Action(StrEnum):
    """What a policy's rule does with a message: let it go, refuse it, or take it to the Orchestrator instead."""

    ALLOW = "allow"
    REFUSE = "refuse"
    HUB = "hub"


@dataclass(frozen=True)
class PolicyRule:
    """One rule about the messages from a role to a role; * is any role."""

    name: str
    sender: str
    recipient: str
    action: Action

    def fits(self, sender: str, recipient: str) -> bool:
        return self.sender in (ANYBODY, sender) and self.recipient in (ANYBODY, recipient)


@dataclass(frozen=True)
class Policy:
    """The rules in their order; without any, everybody may write to everybody."""

    rules: tuple[PolicyRule, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What becomes of a message, and the rule that says so; None when no rule fits."""

    action: Action
    rule: str | None = None


ALLOWED = Verdict(Action.ALLOW)


def deciding_rule(found: Classification, verdict: Verdict) -> str:
    """The rule that a message went by: the policy's when it stopped or turned it, else that of its class."""
    return found.rule if verdict.action is Action.ALLOW or not verdict.rule else verdict.rule


def decide(policy: Policy, sender: str, recipient: str, *, hub: str) -> Verdict:
    """The first rule that fits. What comes from the hub or goes to it need not be taken there."""
    for rule in policy.rules:
        if rule.fits(sender, recipient):
            is_there = rule.action is Action.HUB and hub in (sender, recipient)
            return Verdict(Action.ALLOW if is_there else rule.action, rule.name)
    return ALLOWED


def parse_policy(entries: Any, *, roles: Collection[str]) -> Policy:
    """A policy from what its YAML holds. Raises `OrchestratorError` naming the rule that is wrong.

    `roles` are those that there are: a rule about any other would never hold, and nobody would notice.
    """
    if entries is None:
        return Policy()
    if not isinstance(entries, Mapping) or set(entries) - {"rules", "git"}:
        raise OrchestratorError("it must hold `rules:` and `git:`, and nothing else")
    found = entries.get("rules")
    if found is not None and not isinstance(found, list):
        raise OrchestratorError("`rules` must be a list")
    rules = tuple(_rule(number, entry, roles) for number, entry in enumerate(found or [], 1))
    for twice in _twice(rule.name for rule in rules):
        raise OrchestratorError(f"two rules have the name {twice!r}")
    return Policy(rules)


def _rule(number: int, entry: Any, roles: Collection[str]) -> PolicyRule:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    which = f"rule {name!r}" if name else f"rule {number}"
    if not isinstance(entry, Mapping) or not all(isinstance(value, str) and value for value in entry.values()):
        raise OrchestratorError(f"{which} must hold name, from, to and action, each a word", hint='quote the "*"')
    keys = ("name", "from", "to", "action")
    if wrong := [str(key) for key in entry if key not in keys]:
        raise OrchestratorError(f"{which} has an unknown key {wrong[0]!r}", hint=f"a rule has {', '.join(keys)}")
    if missing := [key for key in keys if key not in entry]:
        raise OrchestratorError(f"{which} has no {missing[0]!r}", hint=f"a rule has {', '.join(keys)}")
    if entry["action"] not in list(Action):
        raise OrchestratorError(
            f"{which} has an unknown action {entry['action']!r}", hint=f"actions: {', '.join(Action)}"
        )
    if unknown := [entry[key] for key in ("from", "to") if entry[key] not in (ANYBODY, *roles)]:
        raise OrchestratorError(
            f"{which} names an unknown role {unknown[0]!r}", hint=f"roles: {ANYBODY}, {', '.join(roles)}"
        )
    return PolicyRule(entry["name"], entry["from"], entry["to"], Action(entry["action"]))


def _twice(names: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
