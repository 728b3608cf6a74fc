"""The common kit of every door: its options, its output, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import click

from lib import config, store
from lib.errors import ExitCode, OrchestratorError
from lib.records import dataclass

#: Git sets these for its hooks. A door that a hook runs works on the repository that it is told, not on the hook's,
#: and so do the agents that it starts.
_OF_A_GIT_HOOK = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"),
)

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Output:
    """Where a door prints: the answer to stdout, talk to stderr."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def answer(self, text: str, data: object = None) -> None:
        """Print the answer: `data` as JSON under --json, else `text` when there is any."""
        if self.json:
            click.echo(as_json(data, indent=2))
        elif text:
            click.echo(text)

    def say(self, sentence: str) -> None:
        """Tell the person what happens meanwhile; silent under --quiet."""
        if not self.quiet:
            click.echo(sentence, err=True)

    def detail(self, sentence: str) -> None:
        """Tell more, under --verbose only."""
        if self.verbose and not self.quiet:
            click.echo(sentence, err=True)


#: JSON may hold these as they are; a terminal takes some of them for commands.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def as_json(data: object, *, indent: int | None = None) -> str:
    """Data as JSON that a terminal can show: whatever text is in it, no control character stands there as itself."""
    return json.dumps(data, indent=indent, ensure_ascii=False, default=str).translate(_CONTROLS)


class RowId(click.ParamType[int]):
    """The id of a row of the store, as an option's type."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """A number that SQLite takes. Fails as a wrong command line does."""
        if isinstance(value, int):
            return value
        # isdecimal: what isdigit takes, such as ², int does not; nor does it take thousands of digits.
        if not str(value).isdecimal() or len(str(value)) > 18:
            self.fail(f"{value!r} is no id", param, ctx)
        return int(value)


class EntryId(RowId):
    """The id of an entry of this machine's queue, a number, or of the fleet's, a text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The same. Fails as a wrong command line does."""
        # As fleet/entries.py mints them: loading that would cost every door its time.
        return value if re.fullmatch(r"f[0-9a-f]{8}", str(value)) else super().convert(value, param, ctx)


class Label(click.ParamType[str]):
    """A label of hosts, as an option's type."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same. Fails as a wrong command line does."""
        if not re.fullmatch(config.HOST_FORM, str(value)):
            self.fail(f"{value!r} is no label: letters a to z, digits and dashes", param, ctx)
        return str(value)


pass_output = click.make_pass_decorator(Output, ensure=True)


def _remember(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    # The option stands on the group and on each verb, so that it works before and after the verb:
    # both write to the one Output of the whole command line, and only a given flag writes.
    if value and option.name:
        setattr(ctx.find_root().ensure_object(Output), option.name.removesuffix("_"), True)


def common_options(function: Function) -> Function:
    """Add --json, --quiet and --verbose; read them with `@cli.pass_output`."""
    for flags, name, text in (
        (("-v", "--verbose"), "verbose", "Say more."),
        (("-q", "--quiet"), "quiet", "Print the answer only."),
        (("--json",), "json_", "Print the answer as JSON."),
    ):
        add = click.option(*flags, name, is_flag=True, help=text, expose_value=False, callback=_remember)
        function = add(function)
    return function


class _TextCommand(click.Command):
    """A command whose arguments may be somebody's text: one with white space in it is never an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Hidden from click's parser by a character that no argument of a process can hold, in its place.
        hidden = [f"\0{word}" if word.startswith("-") and len(word.split()) > 1 else word for word in args]
        left = super().parse_args(ctx, hidden)
        ctx.params = {name: _unhide(value) for name, value in ctx.params.items()}
        return left


def _unhide(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix("\0")
    return tuple(map(_unhide, value)) if isinstance(value, tuple) else value


def _settings(examples: str) -> dict[str, Any]:
    # \b keeps click from re-wrapping the examples: they run as written.
    lines = "\n".join("  " + line.strip() for line in examples.strip().splitlines())
    return {
        "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
        "epilog": f"\b\nExamples:\n{lines}" if lines else None,
    }


def command(*, examples: str, text_arguments: bool = False) -> Callable[[Function], click.Command]:
    """Make a door of one function. `examples` are command lines that run as written.

    With `text_arguments` an argument that holds white space is text, even when it begins with a dash.
    """

    def decorate(function: Function) -> click.Command:
        return click.command(cls=_class(text_arguments), **_settings(examples))(common_options(function))

    return decorate


class _Verbs(click.Group):
    """A group that loads the module of a verb when the verb is named, and all of them for its help."""

    def __init__(self, *arguments: Any, modules: Mapping[str, str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self._modules, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._modules:
            importlib.import_module(self._modules[cmd_name])
        return super().get_command(ctx, cmd_name)


def group(*, examples: str, modules: Mapping[str, str] = MappingProxyType({})) -> Callable[[Function], click.Group]:
    """Make a door with verbs; add each with `@verb(group, examples=...)`.

    `modules` names for each verb the module that does so: it is loaded when the verb is run.
    """

    def decorate(function: Function) -> click.Group:
        made: click.Group = click.group(cls=_Verbs, modules=modules, **_settings(examples))(common_options(function))
        return made

    return decorate


def verb(
    parent: click.Group, name: str | None = None, *, examples: str, text_arguments: bool = False
) -> Callable[[Function], click.Command]:
    """Add a verb to a group; --json and its like work before and after it. See `command`."""

    def decorate(function: Function) -> click.Command:
        return parent.command(name, cls=_class(text_arguments), **_settings(examples))(common_options(function))

    return decorate


def _class(text_arguments: bool) -> type[click.Command]:
    return _TextCommand if text_arguments else click.Command


def run(door: click.Command) -> NoReturn:
    """Run a door and leave with the exit code of the house table; the only catch-all of the doors."""
    output = Output()
    for name in _OF_A_GIT_HOOK:
        os.environ.pop(name, None)
    try:
        code = door.main(obj=output, standalone_mode=False)
        # Output that cannot be written is noticed here and not in the interpreter's shutdown.
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        sys.exit(ExitCode.USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OrchestratorError as error:
        _tell(error.sentence, error.hint)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has left: that is no error of ours. Stdout must not be flushed again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _tell(f"{error.strerror or error}{where}", None)
        sys.exit(ExitCode.FAILED)
    except sqlite3.Error as error:
        found = store.trouble(error, config.state_home())
        _tell(*(found.sentence, found.hint) if found else (f"bug: {error}", _keep_traceback(output)))
        sys.exit(found.exit_code if found else ExitCode.BUG)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever is left is a bug of ours, and is kept for the report
        _tell(f"bug: {type(error).__name__}: {error}", _keep_traceback(output))
        sys.exit(ExitCode.BUG)


def _tell(sentence: str, hint: str | None) -> None:
    click.echo(f"error: {sentence}", err=True)
    if hint:
        click.echo(f"  next: {hint}", err=True)


def _keep_traceback(output: Output) -> str:
    import traceback  # noqa: PLC0415 - 8 ms that a door without a bug need not pay

    text = traceback.format_exc()
    if output.verbose:
        click.echo(text, err=True)
    try:
        log = config.state_home() / "logs" / "bugs.log"
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{sys.argv}\n{text}\n")
    except OSError:
        return "run it again with --verbose and report what it prints"
    return f"the traceback is in {log}"
