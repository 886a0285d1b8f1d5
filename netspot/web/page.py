"""The page as the server writes it: whole without JavaScript, and the static files, read once."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from netspot.snapshot import Board, Described, Snapshot

FOLDER = Path(__file__).parent / "static"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
NONE = "\N{EN DASH}"
INCIDENTS = 20  # newest, in the page without JavaScript


@cache
def static(name: str) -> tuple[str, bytes, str]:
    """Content type, body and entity tag of a static file; an empty body: there is none."""
    if name not in _files():
        return "text/plain", b"", ""
    body = (FOLDER / name).read_bytes()
    return KINDS[Path(name).suffix], body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


@cache
def _files() -> frozenset[str]:
    return frozenset(path.name for path in FOLDER.iterdir() if path.suffix in KINDS)


@cache
def _template() -> Template:
    return Template((FOLDER / "page.html").read_text("utf-8"))


def render(board: Board, readable: bool, changer: bool, wrong: bool) -> str:
    """The page as it stands now. Without the right to read it holds nothing but the login form."""
    info, snapshot = board.info, board.current
    rows = [_row(described, snapshot) for described in info.stats] if readable else []
    news = [_incident(message) for _, message in reversed(snapshot.incidents[-INCIDENTS:])] if readable else []
    return _template().substitute(
        title=escape(info.node if readable else "netspot"),
        subtitle=escape(f"{info.series}, version {info.version}") if readable else "",
        state=" ".join(["in" if changer else "out", "open" if readable else "closed", "wrong" if wrong else ""]),
        phase=escape(phase(snapshot)) if readable else "log in to read",
        rows="\n".join(rows),
        incidents="\n".join(news) or "<li>none</li>",
    )


def phase(snapshot: Snapshot) -> str:
    """What the detectors do, in words."""
    health = snapshot.health
    name = str(health.get("phase", "starting"))
    if name == "learning":
        return f"learning, {health.get('learned', 0)} of {health.get('needed', 0)} windows"
    return name


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.4g}"


def _row(described: Described, snapshot: Snapshot) -> str:
    sample = snapshot.samples.get(described.name)
    unit = "" if described.unit == "1" else described.unit
    cells = [NONE, NONE, NONE, "learning"]
    if sample is not None:
        cells = [number(sample.value), number(sample.down), number(sample.up), sample.state]
    body = "".join(f"<td>{escape(cell)}</td>" for cell in [*cells, unit, described.help])
    return f'<tr class="{cells[3]}"><th scope="row">{escape(described.name)}</th>{body}</tr>'


def _incident(message: Any) -> str:
    when = message["start"] + (f" to {message['end']}" if message["end"] else ", still open")
    return f"<li><b>{escape(message['title'])}</b> {escape(when)}; {escape(', '.join(message['stats']))}</li>"
