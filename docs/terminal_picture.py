"""Draws what a terminal showed, moment by moment, as one SVG that plays and that ends on its last moment."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rich.style import Style
from rich.text import Text

COLUMNS, ROWS = 100, 30
_CELL, _LINE, _MARGIN, _BAR = 8.0, 18, 18, 38
_TYPED_SECONDS, _HELD_SECONDS = 1.0, 6.0
_GROUND, _FRAME, _TEXT, _FAINT = "#11151c", "#2a313c", "#d5dbe5", "#77808f"
#: By the number of the terminal's colour.
_COLOURS = {1: "#ff6b6b", 2: "#7bd88f", 3: "#ffd166", 6: "#4cc9f0"}
_PROMPT = _COLOURS[2]

Run = tuple[str, str]
Row = tuple[Run, ...]


@dataclass(frozen=True)
class Frame:
    """What the terminal held at a moment, its history included; `lines` carry their colours as escape sequences."""

    seconds: float
    lines: tuple[str, ...]


def draw(command: str, frames: Sequence[Frame]) -> str:
    """An SVG that plays the frames again and again; where nothing plays, it shows the last one."""
    whole = _TYPED_SECONDS + frames[-1].seconds + _HELD_SECONDS
    moments = [(0.0, _rows(command, ()))] + [
        (_TYPED_SECONDS + frame.seconds, _rows(command, frame.lines)) for frame in frames
    ]
    width, height = COLUMNS * _CELL + 2 * _MARGIN, _BAR + ROWS * _LINE + _MARGIN
    body, rules = _body(moments, whole)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
            ' aria-label="A terminal in which the demo starts four agents and shows how they complete a spec">',
            "<style>",
            "text{font:13.2px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
            f"fill:{_TEXT};white-space:pre}}",
            *rules,
            "@media (prefers-reduced-motion:reduce){*{animation:none!important}}",
            "</style>",
            f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="10" fill="{_GROUND}"'
            f' stroke="{_FRAME}"/>',
            *(f'<circle cx="{_MARGIN + 4 + 20 * n}" cy="19" r="5.5" fill="{_FRAME}"/>' for n in range(3)),
            f'<text x="{width / 2:g}" y="24" text-anchor="middle" style="fill:{_FAINT}">tmux-orchestrator</text>',
            f'<clipPath id="view"><rect x="0" y="{_BAR}" width="{width:g}" height="{ROWS * _LINE + 6}"/></clipPath>',
            '<g clip-path="url(#view)">',
            *body,
            "</g>",
            "</svg>",
            "",
        )
    )


def _rows(command: str, lines: Sequence[str]) -> list[Row]:
    """Lines as rows of the drawn terminal: coloured runs, wrapped at its width, below the command."""
    rows: list[Row] = [((f"$ {command}", f"fill:{_PROMPT}"),)]
    for line in lines:
        text = Text.from_ansi(line)
        cuts = range(COLUMNS, len(text), COLUMNS)
        rows += [_runs(part) for part in text.divide(cuts)]
    return rows


def _runs(text: Text) -> Row:
    offsets = sorted({0, len(text), *(edge for span in text.spans for edge in (span.start, span.end))})
    found = []
    for start, end in itertools.pairwise(offsets):
        styles = [span.style for span in text.spans if span.start <= start < span.end]
        combined = Style.combine([Style.null(), *(style for style in styles if isinstance(style, Style))])
        found.append((text.plain[start:end], _css(combined)))
    return tuple(found)


def _css(style: Style) -> str:
    rules = []
    if style.color and style.color.number in _COLOURS:
        rules.append(f"fill:{_COLOURS[style.color.number]}")
    if style.dim:
        rules.append("opacity:.35")
    if style.bold:
        rules.append("font-weight:600")
    return ";".join(rules)


def _body(moments: Sequence[tuple[float, list[Row]]], whole: float) -> tuple[list[str], list[str]]:
    """The rows, each shown for as long as the terminal held it, in a group that scrolls; and the rules of that."""
    rules, body = [], []
    scrolled = [(at, max(0, len(rows) - ROWS) * _LINE) for at, rows in moments]
    steps = "".join(f"{_percent(at, whole)}{{transform:translateY(-{by}px)}}" for at, by in scrolled)
    rules.append(f"@keyframes scroll{{{steps}}}")
    rules.append(f"#log{{transform:translateY(-{scrolled[-1][1]}px);animation:scroll {whole:.2f}s step-end infinite}}")
    body.append('<g id="log">')
    for number in range(max(len(rows) for _, rows in moments)):
        states = _states([(at, rows[number] if number < len(rows) else ()) for at, rows in moments])
        for index, (at, until, row) in enumerate(states):
            if not row:
                continue
            is_last = until is None
            name = f"r{number}-{index}"
            if at > 0 or not is_last:
                shown = [f"0%{{visibility:{'visible' if at == 0 else 'hidden'}}}"]
                shown += [f"{_percent(at, whole)}{{visibility:visible}}"] if at > 0 else []
                shown += [] if until is None else [f"{_percent(until, whole)}{{visibility:hidden}}"]
                rules.append(f"@keyframes {name}{{{''.join(shown)}}}")
                base = "visible" if is_last else "hidden"
                rules.append(f"#{name}{{visibility:{base};animation:{name} {whole:.2f}s step-end infinite}}")
            body.append(f'<g id="{name}">{_text(number, row)}</g>')
    body.append("</g>")
    return body, rules


def _states(seen: Sequence[tuple[float, Row]]) -> list[tuple[float, float | None, Row]]:
    """What a row held, from when until when; None is "until the end"."""
    changes = [(at, row) for n, (at, row) in enumerate(seen) if n == 0 or seen[n - 1][1] != row]
    ends = [at for at, _ in changes[1:]] + [None]
    return [(at, until, row) for (at, row), until in zip(changes, ends, strict=True)]


def _text(number: int, row: Row) -> str:
    y, column, parts = _BAR + number * _LINE + 13, 0, []
    for text, css in row:
        if text.strip():
            # The length pins every run to the grid, whatever font the reader has.
            place = f'x="{_MARGIN + column * _CELL:g}" y="{y}" textLength="{len(text) * _CELL:g}"'
            parts.append(f"<text {place}{f' style={chr(34)}{css}{chr(34)}' if css else ''}>{escape(text)}</text>")
        column += len(text)
    return "".join(parts)


def _percent(at: float, whole: float) -> str:
    return f"{at / whole * 100:.2f}%"
