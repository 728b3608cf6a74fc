"""A spec: what the user wants, read from Markdown."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath

from lib.errors import OrchestratorError
from lib.records import dataclass

#: A spec is read by every agent; a bigger one is more likely a wrong file.
MAXIMUM_BYTES = 1_000_000
#: Front matter is a few names and values.
MOST_FRONT_MATTER = 20_000

_HEADING = re.compile(r"^#{1,6}\s+(?P<name>\S.*)$")
_KEY = re.compile(r"^(?P<name>[A-Za-z][A-Za-z ]{2,40}):\s*(?P<rest>.*)$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?P<text>.+)$")
_FENCE = re.compile(r"^ {0,3}(?P<mark>`{3,}|~{3,})(?P<info>.*)$")
_CHECK = "[check:"

_CRITERIA = ("success criteria", "acceptance criteria", "definition of done")
#: The keys that count in any case. Another one counts in upper case only, so that "Note: ..." stays prose.
_KNOWN = frozenset(("project", "goal", "constraints", "deliverables", "requirements", "target", "security", *_CRITERIA))


@dataclass(frozen=True)
class Criterion:
    """When the work is done. The id is C and its place among all criteria of the spec, from 1: C1, C2.

    `check` is the command of a `[check: COMMAND]` at the end, which may hold brackets; `text` is without it.
    """

    id: str
    text: str
    check: str | None
    line: int


@dataclass(frozen=True)
class Deliverable:
    """What is to be made. The id is D and its place among all deliverables of the spec, from 1: D1, D2."""

    id: str
    text: str
    line: int


@dataclass(frozen=True)
class _Item:
    """An item or a line of a section, and the line of the file where it begins."""

    section: str
    text: str
    line: int
    is_code: bool = False


@dataclass(frozen=True)
class Spec:
    """A title, the text as it was written, and its sections by lower-case name, each a tuple of items or lines."""

    title: str
    text: str
    sections: dict[str, tuple[str, ...]]
    criteria: tuple[Criterion, ...] = ()
    deliverables: tuple[Deliverable, ...] = ()

    @property
    def digest(self) -> str:
        """Names this content: the first 12 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def parse(content: bytes, path: PurePath) -> Spec:
    """Read a spec. Raises `OrchestratorError` naming the file when it is empty, binary or enormous."""
    if len(content) > MAXIMUM_BYTES:
        raise OrchestratorError(f"the spec {path} has more than {MAXIMUM_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise OrchestratorError(f"the spec {path} is not UTF-8 text (line {line}, byte {error.start})") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise OrchestratorError(f"the spec {path} is a binary file (line {line} holds a null character)")
    if not text.strip():
        raise OrchestratorError(f"the spec {path} is empty", hint="examples/ has specs to start from")
    front = _front_matter(text, path)
    names, items = _items(text, front)
    grouped: dict[str, list[str]] = {name: [] for name in names}
    for one in items:
        grouped[one.section].append(one.text)
    sections = {name: tuple(content) for name, content in grouped.items()}
    made = [one for one in items if one.section == "deliverables" and not one.is_code]
    return Spec(
        title=_title(text, front, sections, path),
        text=text,
        sections=sections,
        criteria=_criteria(items, path),
        deliverables=tuple(Deliverable(f"D{n}", one.text, one.line) for n, one in enumerate(made, 1)),
    )


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, and whether it is in a code fence, where nothing has a meaning."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.match(line)
        if fence:
            yield number, line, True
            if found and found["mark"].startswith(fence) and not found["info"].strip():
                fence = ""
        else:
            # Backticks after backticks are code within a line, which opens nothing.
            if found and not (found["mark"][0] == "`" and "`" in found["info"]):
                fence = found["mark"]
            yield number, line, bool(fence)


@dataclass(frozen=True)
class _Front:
    """The front matter: its items, its names, and how many lines of the file it has."""

    names: tuple[str, ...] = ()
    items: tuple[_Item, ...] = ()
    lines: int = 0


def _front_matter(text: str, path: PurePath) -> _Front:
    """The YAML between `---` on the first line and the next `---`. What is no `name: value` there is a text's own line.

    Raises `OrchestratorError` with file and line for YAML that is wrong, and for a value that is no text.
    """
    lines = text.splitlines()
    if lines[0].rstrip() != "---" or "---" not in (later := [line.rstrip() for line in lines[1:]]):
        return _Front()
    import yaml  # noqa: PLC0415 - 22 ms that a spec without front matter need not cost

    end = later.index("---")
    if sum(map(len, lines[: end + 1])) > MOST_FRONT_MATTER:
        raise OrchestratorError(f"{path}, line 1: the front matter has more than {MOST_FRONT_MATTER:,} characters")
    try:
        found = yaml.compose("\n".join(lines[1 : end + 1]), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        said = getattr(error, "problem", None) or "it is no YAML"
        raise OrchestratorError(f"{path}, line {line}: the front matter cannot be read: {said}") from None
    if not isinstance(found, yaml.MappingNode):
        return _Front()
    names: list[str] = []
    items: list[_Item] = []
    for key, value in found.value:
        name = str(key.value).strip().lower()
        names.append(name)
        for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            line = one.start_mark.line + 2
            if not isinstance(one, yaml.ScalarNode):
                raise OrchestratorError(f"{path}, line {line}: {name} in the front matter must be text or a list of it")
            if one.value.strip():
                items.append(_Item(name, " ".join(one.value.split()), line))
    return _Front(tuple(names), tuple(items), end + 2)


def _start(line: str, before: str | None) -> tuple[str, str] | None:
    """The name of the section that begins with this line, and what follows the name there.

    A known key that is not in upper case begins none within a paragraph or a list, where `Goal: ...` may be a sentence:
    it stands alone on its line, or the line `before` is empty or begins a section itself.
    """
    if heading := _HEADING.match(line):
        return heading["name"].rstrip().rstrip("#").rstrip(), ""
    key = _KEY.match(line)
    if key is None:
        return None
    is_known = key["name"].strip().lower() in _KNOWN
    if key["name"].isupper() or (is_known and (not key["rest"].strip() or before is None)):
        return key["name"], key["rest"]
    return None


def _items(text: str, front: _Front) -> tuple[list[str], list[_Item]]:
    """The names of the sections as they come, and their items; lines before the first section belong to none."""
    names: dict[str, None] = dict.fromkeys(front.names)
    items: list[_Item] = list(front.items)
    section, parts, begun, listed, is_code = "", list[str](), 0, False, False
    before: str | None = None

    def end() -> None:
        if section and parts:
            items.append(_Item(section, " ".join(parts), begun, is_code))
        parts.clear()

    for number, line, fenced in _lines(text):
        if number <= front.lines:
            continue
        start = None if fenced else _start(line, before)
        before = None if start or not line.strip() else line
        if start:
            end()
            section = start[0].strip().rstrip(":").lower()
            names[section] = None
            line, listed = start[1], False
        item = None if fenced else _ITEM.match(line)
        content = (item["text"] if item else line).strip()
        if not content:
            continue
        if not (listed and parts and not item and not fenced and line[:1].isspace()):
            end()
            begun, listed, is_code = number, bool(item), fenced
        parts.append(content)
    end()
    return list(names), items


def _criteria(items: list[_Item], path: PurePath) -> tuple[Criterion, ...]:
    found = [one for one in items if one.section in _CRITERIA and not one.is_code]
    return tuple(Criterion(f"C{n}", *_checked(one, path), one.line) for n, one in enumerate(found, 1))


def _checked(item: _Item, path: PurePath) -> tuple[str, str | None]:
    """The text without its check, and the check. Raises `OrchestratorError` with file and line."""
    text, opened, rest = item.text.partition(_CHECK)
    if not opened:
        return item.text, None
    command = rest.removesuffix("]").strip()
    if not rest.endswith("]"):
        wrong = "is not closed by ] at the end of its item"
    elif not command:
        wrong = "is empty"
    elif _CHECK in command:
        wrong = "is not the only one of its item"
    elif reason := _unsplittable(command):
        wrong = f"cannot be split into words: {reason}"
    else:
        return text.strip(), command
    raise OrchestratorError(f"{path}, line {item.line}: the check {wrong}", hint="- text [check: COMMAND]")


def _unsplittable(command: str) -> str | None:
    """Why a command has no words, as what runs it splits them (`commands.run`: no shell); None when it has."""
    try:
        shlex.split(command)
    except ValueError as error:
        return str(error)
    return None


def _title(text: str, front: _Front, sections: dict[str, tuple[str, ...]], path: PurePath) -> str:
    if project := sections.get("project"):
        return project[0]
    if named := next((one for one in front.items if one.section == "title"), None):
        return named.text
    for number, line, fenced in _lines(text):
        if number > front.lines and not fenced and _HEADING.match(line) and (start := _start(line, None)):
            return start[0] or path.stem
    return path.stem


def slug(text: str, *, longest: int = 40) -> str:
    """A name that tmux, git and folders take: lower-case letters, digits and dashes; never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].rstrip("-") or "project"
