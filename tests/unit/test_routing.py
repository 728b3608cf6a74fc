"""What counts as news, and what a policy lets go where."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lib.errors import OrchestratorError
from lib.judgement import routing
from lib.judgement.routing import (
    GUARDS,
    NEWS,
    ROWS,
    Action,
    Classification,
    Guard,
    MessageClass,
    Policy,
    PolicyRule,
    Verdict,
    classify,
    decide,
    parse_policy,
)
from lib.models import MessageKind

COMPLETION, DEPLOYMENT, FAILURE = MessageClass.COMPLETION, MessageClass.DEPLOYMENT, MessageClass.FAILURE
QUESTION, PLAIN = MessageClass.QUESTION, MessageClass.PLAIN

TEXTS = [
    # -- completions --
    # The plain statement.
    ("The login endpoint is done.", COMPLETION, "done"),
    # One word is a report.
    ("Done.", COMPLETION, "done"),
    # Letters of any size.
    ("STATUS: DONE", COMPLETION, "done"),
    # Emphasis is no part of the word.
    ("**Done**: login and logout", COMPLETION, "done"),
    # A contraction, with either apostrophe.
    ("It's done", COMPLETION, "done"),
    ("It’s done", COMPLETION, "done"),
    # A perfect tense.
    ("I have finished the parser and its tests.", COMPLETION, "completed"),
    # The past tense of what somebody did.
    ("I completed the migration of the users table", COMPLETION, "completed"),
    # "complete" as what it is now.
    ("The migration is complete, and the tests are green.", COMPLETION, "complete"),
    ("Login complete ✅", COMPLETION, "complete"),
    # A headline without a verb.
    ("Login endpoint complete", COMPLETION, "complete"),
    # A whole is no part.
    ("The report is 100% complete", COMPLETION, "complete"),
    ("5/5 done", COMPLETION, "done"),
    # A checked box.
    ("- [x] login done", COMPLETION, "done"),
    # Implemented, and handed on.
    ("Implemented the rate limit in middleware.py", COMPLETION, "implemented"),
    ("The branch is ready for review.", COMPLETION, "ready"),
    ("Search is wrapped up", COMPLETION, "wrapped-up"),
    # The question behind it is another sentence.
    ("The login is done. Shall I start with logout?", COMPLETION, "done"),
    # The same in one line with a semicolon.
    ("The login is done; shall I start with logout?", COMPLETION, "done"),
    # The denial is in another clause.
    ("There were no conflicts and the merge is complete", COMPLETION, "complete"),
    ("The login is done, the logout is not.", COMPLETION, "done"),
    # The condition ended at the comma.
    ("Once I had the key, I completed the setup", COMPLETION, "completed"),
    # A condition about another thing, after the news.
    ("The API is done, tell me if you need more", COMPLETION, "done"),
    # A reason is no condition.
    ("Since the API is done I go on with the page", COMPLETION, "done"),
    # "not only" denies nothing.
    ("It is not only done but documented", COMPLETION, "done"),
    # A line that begins like a new sentence is one.
    ("Blocked: none\nCompleted: login", COMPLETION, "completed"),
    # A polite word that asks for nothing.
    ("Please note that the login is done", COMPLETION, "done"),
    ("I can confirm that it is done", COMPLETION, "done"),
    # -- deployments --
    ("Deployed v1.2 to staging", DEPLOYMENT, "deployed"),
    ("I have redeployed the API.", DEPLOYMENT, "deployed"),
    # A deployment that is complete is a deployment.
    ('Modal "prod" deployment complete', DEPLOYMENT, "deployment-complete"),
    ("The rollout to all regions is finished.", DEPLOYMENT, "deployment-complete"),
    ("The new site is live", DEPLOYMENT, "live"),
    ("Rolled out to half of the hosts", DEPLOYMENT, "rolled-out"),
    ("Released 2.0.1", DEPLOYMENT, "released"),
    ("We shipped it to production", DEPLOYMENT, "released"),
    # When it happened is no condition of it.
    ("I deployed it when the tests were green", DEPLOYMENT, "deployed"),
    # Both: the rarer word wins.
    ("The API is done and deployed", DEPLOYMENT, "deployed"),
    # -- failures --
    ("The build failed on main", FAILURE, "failed"),
    # A failure that is done with is a failure all the same.
    ("The build is done. Two tests failed.", FAILURE, "failed"),
    # A deployment that failed is none.
    ("The deployment failed: no disk space", FAILURE, "failed"),
    ("10 passed, 2 failed", FAILURE, "failed"),
    # A number that is a name.
    ("Build 0 failed", FAILURE, "failed"),
    ("test_login fails on Python 3.11", FAILURE, "failed"),
    ("3 tests fail since your merge", FAILURE, "fail"),
    ("CI is still failing", FAILURE, "failing"),
    ("There is a failure in the payment module.", FAILURE, "failure"),
    ("The server crashed twice", FAILURE, "crashed"),
    ("Upload aborted", FAILURE, "aborted"),
    ("The request timed out after 30 s", FAILURE, "timed-out"),
    ("Rolled back to v1.1", FAILURE, "rolled-back"),
    ("main is broken", FAILURE, "broke"),
    ("I could not deploy the API", FAILURE, "could-not"),
    ("make exited with 2", FAILURE, "exit-code"),
    ("exit code 137", FAILURE, "exit-code"),
    # What makes it fail is part of the news.
    ("It fails when the input is empty", FAILURE, "failed"),
    # "but" ends a condition and a denial.
    ("If you need it take it, but the build failed", FAILURE, "failed"),
    ("Not everything is lost but the build failed", FAILURE, "failed"),
    ("Not deployed because the build failed", FAILURE, "failed"),
    # -- questions --
    # Part of a word, in a question.
    ("Is the tissue box done yet?", QUESTION, "question"),
    ("Done?", QUESTION, "question"),
    ("Is it done?!", QUESTION, "question"),
    ("Did the deploy fail?", QUESTION, "question"),
    ("Did you see that it failed (again)?", QUESTION, "question"),
    # A wrapped one: the sign stands in the next line.
    ("Can you tell me whether it is done\nor not?", QUESTION, "question"),
    # Without its sign it is still none of the news.
    ("Is the login done", PLAIN, "no-row"),
    ("What failed in the last run", PLAIN, "no-row"),
    ("How was it deployed", PLAIN, "no-row"),
    # -- denials --
    ("The login is not done yet", PLAIN, "no-row"),
    ("It isn't complete.", PLAIN, "no-row"),
    ("It isn’t complete.", PLAIN, "no-row"),
    ("Nothing failed", PLAIN, "no-row"),
    ("No failures", PLAIN, "no-row"),
    ("12 passed, 0 failed", PLAIN, "no-row"),
    ("0 tests failed", PLAIN, "no-row"),
    ("The upload failed 0 times", PLAIN, "no-row"),
    ("Failures: 0", PLAIN, "no-row"),
    ("failed: 0, passed: 12", PLAIN, "no-row"),
    ("Done: no", PLAIN, "no-row"),
    ("I have never deployed this", PLAIN, "no-row"),
    ("I do not think that it is done", PLAIN, "no-row"),
    ("It ended without any failure", PLAIN, "no-row"),
    ("None of the tests is failing", PLAIN, "no-row"),
    ("exit code 0", PLAIN, "no-row"),
    ("The flaky test stopped failing", PLAIN, "no-row"),
    # -- conditions --
    ("When it is done, tell me", PLAIN, "no-row"),
    ("Tell me when it is done", PLAIN, "no-row"),
    # A wrapped line is one sentence.
    ("Tell me when the work is\ndone", PLAIN, "no-row"),
    ("If the deploy fails, roll it back", PLAIN, "no-row"),
    ("Once complete, merge it", PLAIN, "no-row"),
    ("Wait until the migration is complete and deployed.", PLAIN, "no-row"),
    ("Start after the build is finished", PLAIN, "no-row"),
    ("Do not merge unless the review is done", PLAIN, "no-row"),
    ("It counts as done when the tests are green", PLAIN, "no-row"),
    # -- plans and wishes --
    ("It will be done tomorrow", PLAIN, "no-row"),
    ("I'll have it finished tonight", PLAIN, "no-row"),
    ("Two services are to be deployed", PLAIN, "no-row"),
    ("The API is being deployed", PLAIN, "no-row"),
    ("That should have failed", PLAIN, "no-row"),
    ("Make sure the docs are complete", PLAIN, "no-row"),
    ("I need the login done today", PLAIN, "no-row"),
    ("Please get it done", PLAIN, "no-row"),
    ("It could be deployed now", PLAIN, "no-row"),
    ("Everything is done by Friday", PLAIN, "no-row"),
    ("It may have failed", PLAIN, "no-row"),
    ("Let me know the login is done", PLAIN, "no-row"),
    ("Please complete the login", PLAIN, "no-row"),
    ("Complete the login and push it", PLAIN, "no-row"),
    ("You complete and push it, I review", PLAIN, "no-row"),
    ("Please deploy v2 to staging", PLAIN, "no-row"),
    # -- parts --
    ("It is almost done", PLAIN, "no-row"),
    ("80% complete", PLAIN, "no-row"),
    ("3 of 5 done", PLAIN, "no-row"),
    ("3/5 deliverables done", PLAIN, "no-row"),
    ("Here is what I have done so far: nothing", PLAIN, "no-row"),
    ("- [ ] login done", PLAIN, "no-row"),
    # -- quotations and code --
    ('The page says "Order complete" in green', PLAIN, "no-row"),
    ("The page says “Order complete” in green", PLAIN, "no-row"),
    ("Print 'done' at the end", PLAIN, "no-row"),
    ("Use `if failed: raise` there", PLAIN, "no-row"),
    ("Look:\n```\n2 failed\n```", PLAIN, "no-row"),
    # A block that nobody closed.
    ("Look:\n```\n2 failed", PLAIN, "no-row"),
    ("> The build failed\nThanks, I look at it", PLAIN, "no-row"),
    ("You said it is done", PLAIN, "no-row"),
    ("Reply done when you have read this", PLAIN, "no-row"),
    ("Mark the item as done", PLAIN, "no-row"),
    # -- parts of words, of names and of paths --
    ("The change was undone", PLAIN, "no-row"),
    ("I opened an issue about tissue paper", PLAIN, "no-row"),
    ("That is completely unrelated", PLAIN, "no-row"),
    ("The list is incomplete", PLAIN, "no-row"),
    ("The old host was undeployed", PLAIN, "no-row"),
    ("We need a failover host", PLAIN, "no-row"),
    ("Read build-failed.log and failed.txt", PLAIN, "no-row"),
    ("See docs/done.md and src/failed", PLAIN, "no-row"),
    ("Run pytest --last-failed", PLAIN, "no-row"),
    ("The field is called is_done", PLAIN, "no-row"),
    # -- other meanings --
    ("Write down your definition of done", PLAIN, "no-row"),
    ("Well done", PLAIN, "no-row"),
    ("Here is a complete list of the routes", PLAIN, "no-row"),
    ("Show the completed items first", PLAIN, "no-row"),
    ("Retry failed jobs twice", PLAIN, "no-row"),
    ("Add a test for failed logins", PLAIN, "no-row"),
    ("Handle login failures in the middleware", PLAIN, "no-row"),
    ("The failure mode is documented in the page", PLAIN, "no-row"),
    ("The published schema is in the repository", PLAIN, "no-row"),
    ("The release notes are long", PLAIN, "no-row"),
    # -- neither --
    ("Please start with the login endpoint", PLAIN, "no-row"),
    ("日本語の文", PLAIN, "no-row"),
    ("", PLAIN, "no-row"),
]


@pytest.mark.parametrize(("text", "message_class", "rule"), TEXTS, ids=[repr(text) for text, _, _ in TEXTS])
def test_a_text_is_classified(text: str, message_class: MessageClass, rule: str) -> None:
    assert classify(text, MessageKind.MESSAGE) == Classification(message_class, rule)


def test_every_row_has_a_text() -> None:
    assert {row.name for row in ROWS} == {rule for _, found, rule in TEXTS if found in NEWS}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_every_guard_keeps_a_text_from_being_news(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "GUARDS", tuple(one for one in GUARDS if one is not guard))
    assert [text for text, found, _ in TEXTS if classify(text, MessageKind.MESSAGE).message_class is not found]


KINDS = [
    # A report is one, whatever it says.
    (MessageKind.REPORT, COMPLETION),
    # A copy makes no other copy.
    (MessageKind.COPY, PLAIN),
    # Neither does what the toolkit itself says, nor a command.
    (MessageKind.DIGEST, PLAIN),
    (MessageKind.CHECK_IN, PLAIN),
    (MessageKind.BRIEFING, PLAIN),
    (MessageKind.NOTICE, PLAIN),
    (MessageKind.COMMAND, PLAIN),
]


@pytest.mark.parametrize(("kind", "message_class"), KINDS)
def test_a_kind_decides(kind: MessageKind, message_class: MessageClass) -> None:
    assert classify("The deploy failed.", kind) == Classification(message_class, f"kind-{kind}")


def test_only_the_text_of_a_message_is_read() -> None:
    assert {kind for kind, _ in KINDS} | {MessageKind.MESSAGE} == set(MessageKind)


#: Every word that can make a text news, alone.
TRIGGERS = sorted(
    {
        *("failed", "fails", "fail", "failing", "failure", "failures", "crashed", "crashes", "crashing", "aborted"),
        *("broke", "broken", "done", "complete", "completed", "finished", "succeeded", "successful", "deployed"),
        *("redeployed", "live", "released", "shipped", "published", "implemented"),
    }
)
LETTERS = st.text(alphabet=string.ascii_letters, max_size=6)
FRAMES = st.sampled_from(
    ["The {} is here.", "It is {}", "{}", "We {} it to production 2.0", "3 tests {}", "Deployment {}", "Status: {}!"]
)


@given(frame=FRAMES, before=LETTERS, word=st.sampled_from(TRIGGERS), after=LETTERS)
@example(frame="It is {}", before="un", word="done", after="")
@example(frame="It is {}", before="", word="complete", after="ly")
def test_a_word_that_only_holds_another_is_no_news(frame: str, before: str, word: str, after: str) -> None:
    assume((before + word + after).lower() not in TRIGGERS)
    assert classify(frame.format(before + word + after), MessageKind.MESSAGE).message_class is PLAIN


@given(word=st.sampled_from(TRIGGERS), around=st.sampled_from(["/", "-", "_", "@", "="]), other=st.sampled_from("axz"))
def test_a_part_of_a_name_is_no_news(word: str, around: str, other: str) -> None:
    for name in (f"{word}{around}{other}", f"{other}{around}{word}", f"{word}.{other}"):
        assert classify(f"It is {name}", MessageKind.MESSAGE).message_class is PLAIN, name


@given(text=st.sampled_from([text for text, found, _ in TEXTS if found in NEWS and not re.search(r"[\n\"`]", text)]))
def test_what_is_quoted_is_no_news(text: str) -> None:
    for quoted in (f'They wrote "{text}"', f"```\n{text}\n```", f"> {text}", f"`{text}`"):
        assert classify(quoted, MessageKind.MESSAGE).message_class is PLAIN, quoted


@given(st.text())
@example("¶ done")
@example("done" * 3 + "?")
def test_any_text_has_a_class(text: str) -> None:
    found = classify(text, MessageKind.MESSAGE)
    assert found.is_news == (found.message_class in (COMPLETION, DEPLOYMENT, FAILURE))


ENDLESS = [
    "1",
    "not ",
    "not done ",
    "if done ",
    "when x done ",
    "deploy ",
    "exit ",
    "“",
    "'a ",
    "`",
    ") ",
    "? ",
    "complete *",
]


@pytest.mark.timeout(30)  # one pattern that tries everything took four minutes
@pytest.mark.parametrize("piece", ENDLESS)
def test_a_text_without_a_stop_is_read_in_seconds(piece: str) -> None:
    assert classify(piece * (100_000 // len(piece)), MessageKind.MESSAGE).rule


# -- the policy --

NO_TESTER_TO_SYSADMIN = PolicyRule("testers-ask-first", "tester", "sysadmin", Action.REFUSE)
DEVOPS_BY_THE_HUB = PolicyRule("devops-by-the-hub", "*", "devops", Action.HUB)

VERDICTS = [
    # No rules: everybody may write to everybody.
    ((), "tester", "sysadmin", Verdict(Action.ALLOW)),
    # The edge itself.
    ((NO_TESTER_TO_SYSADMIN,), "tester", "sysadmin", Verdict(Action.REFUSE, "testers-ask-first")),
    # Not the way back, and nobody else's.
    ((NO_TESTER_TO_SYSADMIN,), "sysadmin", "tester", Verdict(Action.ALLOW)),
    ((NO_TESTER_TO_SYSADMIN,), "developer", "sysadmin", Verdict(Action.ALLOW)),
    # * is any role.
    ((DEVOPS_BY_THE_HUB,), "developer", "devops", Verdict(Action.HUB, "devops-by-the-hub")),
    # What comes from the hub goes straight.
    ((DEVOPS_BY_THE_HUB,), "orchestrator", "devops", Verdict(Action.ALLOW, "devops-by-the-hub")),
    # What goes to the hub is there.
    ((PolicyRule("star", "*", "*", Action.HUB),), "tester", "orchestrator", Verdict(Action.ALLOW, "star")),
    # A refusal holds for the Orchestrator as well.
    ((PolicyRule("quiet", "*", "tester", Action.REFUSE),), "orchestrator", "tester", Verdict(Action.REFUSE, "quiet")),
    # The first rule wins.
    (
        (PolicyRule("may", "tester", "devops", Action.ALLOW), DEVOPS_BY_THE_HUB),
        *("tester", "devops"),
        Verdict(Action.ALLOW, "may"),
    ),
    ((DEVOPS_BY_THE_HUB, PolicyRule("no", "*", "*", Action.REFUSE)), "a", "b", Verdict(Action.REFUSE, "no")),
]


@pytest.mark.parametrize(("rules", "sender", "recipient", "verdict"), VERDICTS)
def test_a_policy_decides(rules: tuple[PolicyRule, ...], sender: str, recipient: str, verdict: Verdict) -> None:
    assert decide(Policy(rules), sender, recipient, hub="orchestrator") == verdict


ROLES = ("orchestrator", "sysadmin", "tester")


def entry(**changes: object) -> dict[str, object]:
    return {"name": "no-root", "from": "tester", "to": "sysadmin", "action": "refuse"} | changes


def test_a_policy_is_read() -> None:
    found = parse_policy({"rules": [entry(), entry(name="two", **{"from": "*"}, action="hub")]}, roles=ROLES)
    assert found.rules == (
        PolicyRule("no-root", "tester", "sysadmin", Action.REFUSE),
        PolicyRule("two", "*", "sysadmin", Action.HUB),
    )


@pytest.mark.parametrize("empty", [None, {}, {"rules": None}, {"rules": []}])
def test_an_empty_policy_allows_everything(empty: object) -> None:
    assert parse_policy(empty, roles=ROLES) == Policy()


WRONG = [
    # Not a mapping with rules.
    ([], "and nothing else"),
    ("rules", "and nothing else"),
    ({"rule": []}, "and nothing else"),
    ({"rules": {"a": 1}}, "must be a list"),
    # Rules that are none.
    ({"rules": ["tester -> sysadmin"]}, "rule 1 must hold"),
    ({"rules": [entry(to=7)]}, "rule 'no-root' must hold"),
    ({"rules": [entry(name="")]}, "rule 1 must hold"),
    # Each part of a rule.
    ({"rules": [entry(since="now")]}, "rule 'no-root' has an unknown key 'since'"),
    ({"rules": [entry(action="drop")]}, "rule 'no-root' has an unknown action 'drop'"),
    ({"rules": [{"name": "half", "from": "tester", "to": "*"}]}, "rule 'half' has no 'action'"),
    ({"rules": [entry(), {"from": "a", "to": "b", "action": "hub"}]}, "rule 2 has no 'name'"),
    # A role that nobody can hold.
    ({"rules": [entry(to="sysadmins")]}, "rule 'no-root' names an unknown role 'sysadmins'"),
    # A name that names two.
    ({"rules": [entry(), entry()]}, "two rules have the name 'no-root'"),
]


@pytest.mark.parametrize(("entries", "says"), WRONG)
def test_a_wrong_policy_is_refused_by_name(entries: object, says: str) -> None:
    with pytest.raises(OrchestratorError, match=re.escape(says)):
        parse_policy(entries, roles=ROLES)
