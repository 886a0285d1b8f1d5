"""Requests in, answers out: JSON bodies and parameters, errors a person understands, compression."""

from __future__ import annotations

import json
import sys
import traceback
import zlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import bottle

from netspot.events import encode

BODY_MAX = 65_536  # [byte]
BRACKETS = 500  # that open, in a body: the parser recurses in C, and these threads have small stacks
FIELDS = 20  # of a form, or of a query
GZIP_FROM = 600  # [byte] below that, a packet is a packet

Json = dict[str, Any]


def answer(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A mapping becomes JSON; a bug becomes one clear 500, with its traceback in the log alone."""

    def call(**args: str) -> Any:
        try:
            out = handler(**args)
        except bottle.HTTPResponse:
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)
            raise bottle.HTTPError(500, "a bug in netspot: the log has the details") from None
        if not isinstance(out, dict):
            return out
        bottle.response.content_type = "application/json"
        bottle.response.set_header("Cache-Control", "no-store")
        return packed(encode(out).encode())

    return call


def header(name: str) -> str:
    """A header of the request, empty where there is none; bottle's own way ends at bytes that are not UTF-8."""
    return str(bottle.request.environ.get("HTTP_" + name.upper().replace("-", "_"), ""))


def packed(body: bytes) -> bytes:
    """``body``, compressed where that is worth it and the client takes it."""
    accepted = header("Accept-Encoding")
    bottle.response.add_header("Vary", "Accept-Encoding")
    if len(body) < GZIP_FROM or "gzip" not in accepted:
        return body
    bottle.response.set_header("Content-Encoding", "gzip")
    gzip = zlib.compressobj(6, zlib.DEFLATED, 31, 7)
    return gzip.compress(body) + gzip.flush()


def error(error: bottle.HTTPError) -> str:
    """What bottle, or a handler, refuses, as JSON."""
    text = error.body
    if error.status_code == 404 and str(text).startswith("Not found:"):  # bottle's own words
        text = "there is nothing at this address; /api/openapi.json lists what there is"
    elif error.status_code == 405:
        allowed = error.get_header("Allow") or "see /api/openapi.json"
        text = f"{bottle.request.method[:20]} is not allowed here; allowed: {allowed}"
    bottle.response.content_type = "application/json"
    bottle.response.set_header("Cache-Control", "no-store")
    return encode({"error": str(text)})


def plain_error(start: Callable[..., Any], code: str, text: str) -> list[bytes]:
    body = encode({"error": text}).encode()
    start(code, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def see_other(where: str) -> bytes:
    bottle.response.status = 303
    bottle.response.set_header("Location", where)  # relative: a proxy may have added a prefix
    bottle.response.set_header("Cache-Control", "no-store")
    return b""


def raw_body() -> bytes:
    body: bytes = bottle.request.environ["wsgi.input"].read(BODY_MAX + 1)
    if len(body) > BODY_MAX:
        raise bottle.HTTPError(413, f"the body is longer than {BODY_MAX} bytes")
    return body


def body(*known: str) -> Json:
    """The JSON object in the body; with ``known``, nothing but these keys."""
    kind = (bottle.request.content_type or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise bottle.HTTPError(415, "send the body as application/json")
    raw = raw_body()
    if raw.count(b"[") + raw.count(b"{") > BRACKETS:
        raise bottle.HTTPError(400, f"the body has more than {BRACKETS} lists and objects")
    try:
        body = json.loads(raw, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise bottle.HTTPError(400, f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise bottle.HTTPError(400, 'the body must be a JSON object: {"key": value}')
    if known and (more := sorted(set(body) - set(known))):
        raise bottle.HTTPError(400, f"unknown key {more[0][:60]!r}; accepted: {', '.join(known)}")
    return body


def refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def fields_of(text: str) -> dict[str, list[str]]:
    """The fields of a form or of a query, empty ones too."""
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise bottle.HTTPError(400, f"more than {FIELDS} fields") from None


def query(*known: str) -> dict[str, str]:
    fields = fields_of(bottle.request.query_string)
    if more := sorted(set(fields) - set(known)):
        raise bottle.HTTPError(400, f"unknown parameter {more[0][:60]!r}; accepted: {', '.join(known)}")
    return {key: values[-1] for key, values in fields.items()}


def whole(query: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    text = query.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and low <= int(text) <= high):
        raise bottle.HTTPError(400, f"{key}: a whole number from {low} to {high}")
    return int(text)


def choice(value: Any, key: str, accepted: tuple[str | None, ...]) -> str | None:
    if value not in accepted or isinstance(value, list | dict):
        raise bottle.HTTPError(400, f"{key}: one of {', '.join(str(choice) for choice in accepted if choice)}")
    return str(value) if value is not None else None


def done(data: Any) -> Json:
    return {"status": "ok", "data": data}
