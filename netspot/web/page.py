"""The page as the server writes it: whole without JavaScript, and the static files, read once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from netspot.events import iso
from netspot.snapshot import Board, Described, Snapshot

FOLDER = Path(__file__).parent / "static"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
NONE = "\N{EN DASH}"
SHOWN = 20  # newest incidents and alarms, in the page without JavaScript


@cache
def static(name: str) -> tuple[str, bytes, str]:
    """Content type, body and entity tag of a static file; an empty body: there is none."""
    if name not in _files():
        return "text/plain", b"", ""
    body = (FOLDER / name).read_bytes()
    return KINDS[Path(name).suffix], body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


@cache
def _files() -> frozenset[str]:
    return frozenset(path.name for path in FOLDER.iterdir() if path.suffix in KINDS and path.stem != "report")


@cache
def _template() -> Template:
    return Template((FOLDER / "page.html").read_text("utf-8"))


def render(board: Board, readable: bool, changer: bool, wrong: str) -> str:
    """The page as it stands now; ``wrong`` tells what was wrong with a login.

    Without the right to read it holds nothing but the login form.
    """
    info, snapshot = board.info, board.current
    parts = {"figures": "", "health": "", "rows": "", "incidents": "", "alarms": "", "version": ""}
    if readable:
        parts = _parts(board, snapshot)
    return _template().substitute(
        title=escape(info.node if readable else "netspot"),
        subtitle=escape(info.series) if readable else "",
        state=" ".join(["in" if changer else "out", "open" if readable else "closed", "wrong" if wrong else ""]),
        phase=escape(phase(snapshot)) if readable else "Log in to read",
        wrong=escape(wrong),
        **parts,
    )


def _parts(board: Board, snapshot: Snapshot) -> dict[str, str]:
    health = snapshot.health
    figures = [("Packets", f"{health.get('packets_per_s', 0):.0f}/s"), ("Dropped", f"{health.get('dropped', 0)}")]
    figures += [("Window", iso(snapshot.time_ns) if snapshot.time_ns else "none yet")]
    flat = [
        (key.replace("_", " "), str(value)) for key, value in health.items() if isinstance(value, str | int | float)
    ]
    incidents = [_incident(message) for _, message in reversed(snapshot.incidents[-SHOWN:])]
    return {
        "figures": _facts(figures),
        "health": _facts(flat),
        "rows": "\n".join(_row(described, snapshot) for described in board.info.stats),
        "incidents": "\n".join(incidents) or "<li><p>None so far.</p></li>",
        "alarms": "\n".join(_alarm(message) for _, message in reversed(snapshot.alarms[-SHOWN:])),
        "version": escape(board.info.version),
    }


def phase(snapshot: Snapshot) -> str:
    """What the detectors do, in words."""
    health = snapshot.health
    name = str(health.get("phase", "starting"))
    if name == "learning":
        return f"Learning, {health.get('learned', 0)} of {health.get('needed', 0)} windows"
    return name.capitalize()


def number(value: Any) -> str:
    """Four significant digits, or a dash for what is no number."""
    return f"{value:.4g}" if isinstance(value, int | float) and math.isfinite(value) else NONE


def plain(value: Any) -> str:
    """Evidence as text: a pair of a name and a share as ``name 94 %``, lists with commas."""
    match value:
        case [str(name), int(share) | float(share)]:
            return f"{name} {100 * share:.3g} %" if 0 <= share <= 1 else f"{name} {share:.4g}"
        case list() | tuple():
            return ", ".join(plain(item) for item in value)
        case Mapping():
            return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
        case float():
            return number(value)
    return NONE if value is None else str(value)


def peak(message: Mapping[str, Any]) -> str:
    """The worst value of an incident, in words."""
    worst = message["peak"]
    text = f"{worst.get('stat')} {number(worst.get('value'))}, threshold {number(worst.get('threshold'))}"
    return f"{text}, probability {number(worst.get('probability'))}" if worst else ""


def _row(described: Described, snapshot: Snapshot) -> str:
    sample = snapshot.samples.get(described.name)
    unit = "" if described.unit == "1" else described.unit
    cells, state = [NONE, NONE, NONE], "learning"
    if sample is not None:
        cells, state = [number(sample.value), number(sample.down), number(sample.up)], sample.state
    body = "".join(f"<td>{escape(cell)}</td>" for cell in [*cells, unit, state, described.help])
    return f'<tr class="{state}"><th scope="row">{escape(described.name)}</th>{body}</tr>'


def _facts(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs)


def _incident(message: Any) -> str:
    when = message["start"] + (f" to {message['end']}" if message["end"] else ", still going on")
    return (
        f"<li><h3>{escape(message['title'])}</h3><p>{escape(when)}</p><p>{escape(', '.join(message['stats']))}</p></li>"
    )


def _alarm(message: Any) -> str:
    value, limit = number(message["value"]), number(message["threshold"])
    return f"<li>{escape(message['stat'])} {message['event_type']}: {value}, threshold {limit}, {message['time']}</li>"
