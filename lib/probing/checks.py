"""What a probe checks, in order: each is a thing that some room relies on, and named after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from lib import headless
from lib.claude import installed, refusals, spending, starting, transcripts
from lib.errors import OrchestratorError
from lib.judgement.screens import ScreenKind
from lib.models import AgentState, LimitKind
from lib.probing import Result, Verdict
from lib.probing.model import Request, fail, reach_limit, say, say_forever, stream_slowly, tool
from lib.probing.scene import ROLE_MARK, Missed, Scene
from lib.records import dataclass

#: Longer than what Claude Code takes for text of somebody else when it is pasted as one (800 characters, 3 lines).
LONG = "\n".join(f"line {number}: {'with some words in it ' * 4}äöü € 漢字" for number in range(24))
#: How far in the future the limit of the probe ends.
_RESET_SECONDS = 3600
_SHAPE = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Check:
    """`name` is what is relied on. After a vital one has failed, the others have nothing to look at."""

    name: str
    look: Callable[[Scene], None]
    is_vital: bool = False


def run(scene: Scene, names: Collection[str] = ()) -> Iterator[Result]:
    """Make all checks, or those of these names and the vital ones, and give each result as it comes."""
    failed = None
    for check in CHECKS:
        if names and check.name not in names and not check.is_vital:
            continue
        if failed:
            yield Result(check.name, Verdict.UNSEEN, f"{failed} comes before it")
            continue
        try:
            check.look(scene)
            yield Result(check.name, Verdict.HOLDS)
        except (Missed, OrchestratorError, OSError) as error:  # the last: a file of Claude Code's is not to be read
            shown = scene.last_line()
            yield Result(check.name, Verdict.FAILS, f"{error}" + (f"; its window says: {shown}" if shown else ""))
            failed = check.name if check.is_vital else None


def _holds(is_so: bool, sentence: str) -> None:
    if not is_so:
        raise Missed(sentence)


def _turn(scene: Scene, text: str) -> Request:
    """The first turn whose prompt holds a text. Raises `Missed`."""
    return scene.until(lambda: scene.model.turns(text), f"the model was never asked {text!r}")[0]


# -- before a window --


def login(scene: Scene) -> None:
    """`auth status --json` says whether somebody is logged in."""
    installed.check_login(scene.installation.command[0])


def headless_answer(scene: Scene) -> None:
    """`claude -p` answers in a shape that is asked for."""
    scene.model.on("Probe without a window.", tool("StructuredOutput", {"answer": "yes"}), say("done"))
    asking = headless.Asking(scene.installation.command[0], seconds=60.0)
    answer = headless.ask(asking, "Probe without a window.", _SHAPE, folder=scene.folder / "headless")
    _holds(answer.found == {"answer": "yes"}, f"it answered {answer.found}")


def trust_question(scene: Scene) -> None:
    """A folder that nobody has accepted is asked about, and nothing is taken for a composer meanwhile."""
    scene.start("untrusted")
    scene.until(lambda: scene.screen.kind is ScreenKind.DIALOG, "no question whether the folder is trusted was seen")
    _holds(scene.state is AgentState.STARTING, f"before the answer its session file says {scene.state}")
    scene.end()


# -- a life --


def starts(scene: Scene) -> None:
    """With our flags it starts in an accepted folder, asks nothing, and writes its session file."""
    scene.start()
    scene.until(lambda: scene.state is not AgentState.STARTING, "its session file was not seen")
    _holds(scene.state is not AgentState.GONE, "it ended at once")


def composer(scene: Scene) -> None:
    """The composer is read from the screen, empty, and the session file says idle."""
    scene.free()


def start_hook(scene: Scene) -> None:
    """The hook SessionStart runs, and names the conversation that we have chosen."""
    (first,) = scene.until(lambda: scene.hooks("SessionStart"), "the hook SessionStart did not run")[:1]
    _holds(first.conversation_id == scene.agent.conversation_id, "SessionStart names another conversation")
    _holds(first.source == "startup", f"SessionStart says {first.source!r} at a start")


def paste(scene: Scene) -> None:
    """Pasted text stands in the composer."""
    scene.put("Probe of the paste.")


def submit(scene: Scene) -> None:
    """Enter submits it: the hook UserPromptSubmit has the text."""
    scene.composer.submit()
    scene.until(lambda: scene.hooks("UserPromptSubmit"), "the hook UserPromptSubmit did not run after Enter")
    asked = _turn(scene, "Probe of the paste.").prompt
    submitted = scene.hooks("UserPromptSubmit")[0].prompt
    _holds(submitted.strip() in asked, "the model was asked something else than the hook has told")
    scene.free()


def long_text(scene: Scene) -> None:
    """Long text arrives whole, and as the user's own words."""
    text = scene.send(f"Probe of long text.\n{LONG}")
    asked = _turn(scene, "Probe of long text.").prompt
    _holds("<pasted_content" not in asked, "it is marked as pasted from somewhere else")
    _holds(text in asked, "the model was asked something else")
    scene.free()


def role_text(scene: Scene) -> None:
    """The role's file is part of the system prompt."""
    _holds(ROLE_MARK in _turn(scene, "Probe of the paste.").system, "the system prompt does not hold the role's text")


def tools(scene: Scene) -> None:
    """The team's tools are offered to the model, without a search for them."""

    def are_offered() -> bool:
        scene.send("Probe of the tools.")
        asked = scene.until(lambda: scene.model.turns("Probe of the tools."), "the model was never asked")[-1]
        scene.free()
        offered = {str(one.get("name")) for one in asked.body.get("tools") or ()}
        return f"mcp__{starting.TOOLS_NAME}__send_message" in offered

    # Its server takes a moment to start.
    scene.until(are_offered, "the tools of --mcp-config are not offered to the model")


def working(scene: Scene) -> None:
    """At work the session file says so, and idle after the hook Stop."""
    scene.model.on("Probe of a turn.", stream_slowly("one two three four five six", 1.5))
    stops = len(scene.hooks("Stop"))
    scene.send("Probe of a turn.")
    scene.until(lambda: scene.state is AgentState.WORKING, "its session file never said busy")
    scene.until(lambda: len(scene.hooks("Stop")) > stops, "the hook Stop did not run at the end of the turn")
    scene.free()


def queued(scene: Scene) -> None:
    """What is submitted while it works is accepted at once, and read afterwards."""
    scene.model.on("Probe of a long turn.", stream_slowly("one two three four five six", 3.0))
    scene.send("Probe of a long turn.")
    scene.until(lambda: scene.state is AgentState.WORKING, "its session file never said busy")
    scene.send("Probe of the queue.")
    scene.until(
        lambda: any("Probe of the queue." in one.prompt for one in scene.hooks("UserPromptSubmit")),
        "no hook told that it was accepted",
    )
    _turn(scene, "Probe of the queue.")
    scene.free()


def interrupt(scene: Scene) -> None:
    """Escape ends a turn, and the session file says idle."""
    scene.model.on("Probe of Escape.", say_forever())
    scene.send("Probe of Escape.")
    scene.until(lambda: scene.state is AgentState.WORKING, "its session file never said busy")
    _turn(scene, "Probe of Escape.")
    _holds(scene.composer.interrupt(within_seconds=10), "it still works after Escape")


def transcript(scene: Scene) -> None:
    """The transcript has the prompts, what answers have used, and how full the context is."""
    path = scene.transcript()

    def has_prompt() -> bool:
        return any("Probe of the paste." in prompt for prompt in transcripts.prompts(path))

    scene.until(has_prompt, "the transcript does not hold what was submitted")
    used = [spending.read(line) for line in path.read_bytes().splitlines()]
    answers = [one for one in used if isinstance(one, spending.Used)]
    _holds(bool(answers), "the transcript does not say what answers have used")
    _holds(transcripts.context_used(path) is not None, "the transcript does not say how full the context is")


def resume(scene: Scene) -> None:
    """Killed and started with --resume, it goes on in its conversation."""
    time.sleep(0.6)  # what it has done last is in its transcript by then (measured: 0.1 s)
    scene.end(by_force=True)
    scene.start(resume=True)
    scene.free()
    (first,) = scene.until(lambda: scene.hooks("SessionStart"), "the hook SessionStart did not run")[:1]
    _holds(first.source == "resume", f"SessionStart says {first.source!r} at a resume")
    scene.send("Probe of the memory.")
    asked = _turn(scene, "Probe of the memory.")
    _holds("Probe of the paste." in str(asked.body.get("messages")), "the conversation from before is not in it")
    scene.free()


# -- what stands in the way --


def limit(scene: Scene) -> None:
    """A usage limit comes by the hook StopFailure and stands in the transcript, with the time of its reset."""
    resets_at = int(time.time()) + _RESET_SECONDS
    scene.model.on("Probe of a limit.", reach_limit("five_hour", resets_at), repeat_last=True)
    scene.send("Probe of a limit.")
    told = scene.until(lambda: scene.hooks("StopFailure"), "the hook StopFailure did not run")[-1]
    heard = refusals.of_hook(told, now=int(time.time() * 1000))
    _holds(bool(heard and heard.kind is LimitKind.FIVE_HOUR), f"the hook says {told.error!r}: {told.last_message!r}")
    path = scene.transcript()
    found = scene.until(lambda: refusals.last(path), "the transcript does not tell of the limit")[0]
    _holds(found.kind is LimitKind.FIVE_HOUR, f"the transcript tells of a limit of the kind {found.kind}")
    _holds(found.resets_at == resets_at * 1000, "the transcript does not say when the limit resets")


def spend_limit(scene: Scene) -> None:
    """A used-up balance comes by the hook StopFailure."""
    before = len(scene.hooks("StopFailure"))
    scene.model.on("Probe of the balance.", fail(400, "invalid_request_error", "Your credit balance is too low"))
    scene.send("Probe of the balance.")
    told = scene.until(lambda: scene.hooks("StopFailure")[before:], "the hook StopFailure did not run")[-1]
    heard = refusals.of_hook(told, now=int(time.time() * 1000))
    _holds(bool(heard and heard.kind is LimitKind.SPEND), f"the hook says {told.error!r}: {told.last_message!r}")


def question(scene: Scene) -> None:
    """A question for permission is seen by the session file and on the screen, with the keys that answer it."""
    scene.end()
    scene.start(mode="default")
    scene.free()
    scene.model.on("Probe of a question.", tool("Bash", {"command": "touch asked", "description": "Probe"}))
    scene.send("Probe of a question.")
    scene.until(lambda: scene.state is AgentState.ASKING, "its session file never said that it waits")
    dialog = scene.until(scene.composer.dialog, "the question was not read from the screen")
    _holds(len(dialog.choices) > 1, "the choices of the question were not read from the screen")
    _holds(not (scene.agent.worktree / "asked").exists(), "the command ran before it was allowed")
    scene.end()


CHECKS = (
    Check("login", login),
    Check("headless", headless_answer),
    Check("trust question", trust_question),
    Check("start and flags", starts, is_vital=True),
    Check("composer", composer, is_vital=True),
    Check("hook SessionStart", start_hook),
    Check("paste", paste, is_vital=True),
    Check("submit", submit, is_vital=True),
    Check("long text", long_text),
    Check("role text", role_text),
    Check("tools", tools),
    Check("state", working),
    Check("queue", queued),
    Check("interrupt", interrupt),
    Check("transcript", transcript),
    Check("resume", resume),
    Check("limit", limit),
    Check("balance", spend_limit),
    Check("question", question),
)
