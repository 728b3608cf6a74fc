"""A spec: what the user wants, read from Markdown."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePath

from lib.errors import OrchestratorError

#: A spec is read by every agent; a bigger one is more likely a wrong file.
MAXIMUM_BYTES = 1_000_000

_HEADING = re.compile(r"^#{1,6}\s+(?P<name>.+?)\s*#*$")
_KEY = re.compile(r"^(?P<name>[A-Z][A-Z ]{2,40}):\s*(?P<rest>.*)$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?P<text>.+)$")


@dataclass(frozen=True)
class Spec:
    """A title, the text as it was written, and its sections by lower-case name, each a tuple of items or lines."""

    title: str
    text: str
    sections: dict[str, tuple[str, ...]]

    @property
    def digest(self) -> str:
        """Names this content: the first 12 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def deliverables(self) -> tuple[str, ...]:
        return self.sections.get("deliverables", ())


def parse(content: bytes, path: PurePath) -> Spec:
    """Read a spec. Raises `OrchestratorError` naming the file when it is empty, binary or enormous."""
    if len(content) > MAXIMUM_BYTES:
        raise OrchestratorError(f"the spec {path} has more than {MAXIMUM_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OrchestratorError(f"the spec {path} is not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise OrchestratorError(f"the spec {path} is a binary file")
    if not text.strip():
        raise OrchestratorError(f"the spec {path} is empty", hint="examples/ has specs to start from")
    sections = _sections(text)
    return Spec(title=_title(text, sections, path), text=text, sections=sections)


def _sections(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        start = _HEADING.match(line) or _KEY.match(line)
        if start:
            lines = found.setdefault(start["name"].strip().rstrip(":").lower(), [])
            line = start.groupdict().get("rest") or ""
        item = _ITEM.match(line)
        if content := (item["text"] if item else line).strip():
            lines.append(content)
    return {name: tuple(content) for name, content in found.items()}


def _title(text: str, sections: dict[str, tuple[str, ...]], path: PurePath) -> str:
    if project := sections.get("project"):
        return project[0]
    heading = next((found for line in text.splitlines() if (found := _HEADING.match(line))), None)
    return heading["name"] if heading else path.stem


def slug(text: str, *, longest: int = 40) -> str:
    """A name that tmux, git and folders take: lower-case letters, digits and dashes; never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].rstrip("-") or "project"
