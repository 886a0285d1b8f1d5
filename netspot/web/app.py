"""The page and the REST API: reading a snapshot, and handing commands to the main loop."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import bottle

from netspot.commands import CommandError, CommandQueue
from netspot.config import WebConfig
from netspot.events import encode
from netspot.snapshot import Board, Snapshot
from netspot.web import access, page, views, wire

ANSWER_S = 5.0  # how long a request waits for the main loop
DEVICES_S = 5.0  # for so long the list of interfaces is good
MUTE_MAX_S = 7 * 86_400
COOKIE = "netspot"
COOKIE_S = 30 * 86_400

HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)

Json = dict[str, Any]


class App:
    """A WSGI application. Any thread may call it; it keeps nothing of a request but wrong tokens."""

    def __init__(
        self,
        config: WebConfig,
        board: Board,
        commands: CommandQueue,
        config_view: Callable[[], Mapping[str, Any]],
        token: str | None,
        captures: Callable[[str], Path | None],
    ) -> None:
        self.config, self.board, self.commands = config, board, commands
        self._config_view, self._captures = config_view, captures
        self.token = token  # may be replaced at any time
        self._guesses = access.Guesses()
        self._names = access.own_names() | {name.lower() for name in config.hosts or ()}
        self._base = "/" + config.base.strip("/")
        self._local = (config.listen or "").startswith("unix:")
        self._devices: tuple[float, Any] = (-DEVICES_S, [])
        self._whole: tuple[str, bytes] = ("", b"")  # the newest answer to a poll without a cursor, by its tag
        self._bottle = self._routes()

    def _routes(self) -> bottle.Bottle:
        app = bottle.Bottle()
        app.default_error_handler = wire.error
        routes: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/", self.get_page),
            ("GET", "/static/<name>", self.get_static),
            ("POST", "/login", self.post_login),
            ("POST", "/logout", self.post_logout),
            ("GET", "/metrics", self.get_metrics),
            ("GET", "/api/openapi.json", self.get_openapi),
            ("GET", "/api/ping", lambda: {"status": "ok"}),
            ("GET", "/api/status", self.get_status),
            ("GET", "/api/health", self.get_health),
            ("GET", "/api/poll", self.get_poll),
            ("GET", "/api/stats", self.get_stats),
            ("GET", "/api/stats/<name>", self.get_stat),
            ("GET", "/api/alarms", self.get_alarms),
            ("GET", "/api/incidents", self.get_incidents),
            ("GET", "/api/incidents/<name>", self.get_incident),
            ("GET", "/api/devices", self.get_devices),
            ("GET", "/api/config", self.get_config),
            ("POST", "/api/config", self.post_config),
            ("POST", "/api/run", self.post_run),
            ("POST", "/api/relearn", self.post_relearn),
            ("POST", "/api/mute", self.post_mute),
            ("POST", "/api/unmute", self.post_unmute),
        ]
        for method, path, handler in routes:
            app.route(path, method, wire.answer(handler))
        return app

    def __call__(self, environ: Json, start_response: Callable[..., Any]) -> Any:
        """Check the host, take the prefix off, add the headers that every answer carries."""

        def start(code: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(code, [*headers, *HEADERS], exc_info)

        host = environ.get("HTTP_HOST", "")
        if host and not self._local and not access.host_allowed(host, self._names):
            text = f"this machine does not answer to the name {host[:100]!r}; add it to web.hosts, or use the address"
            return wire.plain_error(start, "421 Misdirected Request", text)
        path = environ.get("PATH_INFO", "")
        if self._base != "/":
            if path == self._base:
                start("308 Permanent Redirect", [("Location", self._base + "/"), ("Content-Length", "0")])
                return [b""]
            if path.startswith(self._base + "/"):  # a proxy that takes the prefix off itself works as well
                environ["PATH_INFO"] = path[len(self._base) :]
        return self._bottle(environ, start)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get_page(self) -> Any:
        return self._page("That was not the token." if bottle.request.query_string == "wrong" else "")

    def _page(self, wrong: str) -> bytes:
        bottle.response.content_type = "text/html; charset=utf-8"
        bottle.response.set_header("Cache-Control", "no-store")
        return wire.packed(page.render(self.board, self._may_read(), self.may_change(), wrong).encode())

    def get_static(self, name: str) -> Any:
        kind, body, tag = page.static(name)
        if not body:
            raise bottle.HTTPError(404, f"there is no file {name[:60]!r}")
        bottle.response.content_type = kind
        return self._tagged(tag, lambda: body, "no-cache")

    def get_openapi(self) -> Any:
        kind, body, tag = page.static("openapi.json")
        bottle.response.content_type = kind
        return self._tagged(tag, lambda: body, "no-cache")

    def get_metrics(self) -> Any:
        self._read()
        bottle.response.content_type = "text/plain; version=0.0.4; charset=utf-8"
        return wire.packed(views.metrics(self.board, self.board.current).encode())

    def get_status(self) -> Json:
        return self._status(self._read())

    def get_health(self) -> Json:
        """200 while all is well, 503 with a reason when not."""
        snapshot = self._read()
        reason = views.ill(self.board, snapshot)
        bottle.response.status = 503 if reason else 200
        return {"status": "error" if reason else "ok", "error": reason, **self._status(snapshot)}

    def get_poll(self) -> Any:
        snapshot, board = self._read(), self.board
        query = wire.query("since", "epoch")
        since = wire.whole(query, "since", 0, 2**53)
        oldest = max(snapshot.seq - views.PAGE_ROWS, board.history.set_back)  # behind that, a poll starts anew
        if query.get("epoch") != board.epoch or (since is not None and not oldest <= since <= snapshot.seq):
            since = None
        changer = self.may_change()
        tag = f'"{board.epoch}-{snapshot.seq}-{since}-{changer:d}"'
        bottle.response.content_type = "application/json"
        return self._tagged(tag, lambda: self._news(tag, board, snapshot, since, changer), "no-store")

    def _news(self, tag: str, board: Board, snapshot: Snapshot, since: int | None, changer: bool) -> bytes:
        known, body = self._whole  # the whole is made once for all who begin to look at the same time
        if known == tag:
            return body
        news = views.poll(board, snapshot, since)
        news["status"]["may_change"] = changer
        body = encode(news).encode()
        if since is None:
            self._whole = tag, body
        return body

    def get_stats(self) -> Json:
        board, samples = self.board, self._read().samples
        return {"stats": [views.stat(board, described, samples.get(described.name)) for described in board.info.stats]}

    def get_stat(self, name: str) -> Json:
        snapshot, board = self._read(), self.board
        column = self._known(name)
        out = views.stat(board, board.info.stats[column], snapshot.samples.get(name))
        span = wire.choice(wire.query("history").get("history"), "history", (None, "hour", "day"))
        if span == "hour":
            end = snapshot.seq
            first = end - math.ceil(3600e9 / board.info.period_ns)
            out["history"] = views.history(board.history.windows(first, end, column))
        elif span == "day":
            out["history"] = views.history(board.history.minutes(column))
        return out

    def get_alarms(self) -> Json:
        return {"alarms": [alarm for _, alarm in reversed(self._read().alarms)]}

    def get_incidents(self) -> Json:
        return {"incidents": [incident for _, incident in reversed(self._read().incidents)]}

    def get_incident(self, name: str) -> Any:
        snapshot = self._read()
        key = name.removesuffix(".pcap")
        found = [incident for _, incident in snapshot.incidents if incident["id"] == key]
        if key == name and found:
            return found[0]
        path = self._captures(key) if key != name and re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) else None
        if path is None:
            raise bottle.HTTPError(
                404, f"there is no {'incident' if key == name else 'capture of incident'} {key[:80]!r}"
            )
        answer = bottle.static_file(path.name, root=str(path.parent), mimetype="application/vnd.tcpdump.pcap")
        answer.set_header("Content-Disposition", f'attachment; filename="{key}.pcap"')
        return answer

    def get_devices(self) -> Json:
        self._read()
        asked_s, devices = self._devices
        if time.monotonic() - asked_s >= DEVICES_S:
            devices = self._command("devices", {})
            self._devices = time.monotonic(), devices
        return dict(devices) if isinstance(devices, Mapping) else {"devices": devices}

    def get_config(self) -> Json:
        self._read()
        return dict(self._config_view())

    # -- changing --------------------------------------------------------------------------------------------------

    def post_config(self) -> Any:
        """The settings in the body, whole or not at all; ``?save=1`` writes them back to the file."""
        self._change()
        save = wire.choice(wire.query("save").get("save"), "save", (None, "0", "1")) == "1"
        return wire.done(self._command("config", {"set": wire.body(), "save": save}))

    def post_run(self) -> Any:
        self._change()
        action = wire.choice(wire.body("action").get("action"), "action", ("start", "stop"))
        return wire.done(self._command(str(action), {}))

    def post_relearn(self) -> Any:
        self._change()
        return wire.done(self._command("relearn", {"stat": self._stat_or_all(wire.body("stat"))}))

    def post_mute(self) -> Any:
        self._change()
        body = wire.body("stat", "seconds")
        seconds = body.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MUTE_MAX_S:
            raise bottle.HTTPError(400, f"seconds: a number above 0, at most {MUTE_MAX_S} (a week)")
        return wire.done(self._command("mute", {"stat": self._stat_or_all(body), "seconds": seconds}))

    def post_unmute(self) -> Any:
        self._change()
        return wire.done(self._command("unmute", {"stat": self._stat_or_all(wire.body("stat"))}))

    def post_login(self) -> Any:
        """The form of the page: a right token sets the cookie."""
        given = wire.fields_of(wire.raw_body().decode("utf-8", "replace")).get("token", [""])[0]
        self._own_origin()
        try:
            right = self._check(given.strip())
        except bottle.HTTPError as error:
            if "text/html" not in wire.header("Accept"):
                raise
            bottle.response.status = error.status_code
            return self._page(str(error.body)[:1].upper() + str(error.body)[1:] + ".")
        if right:
            self._set_cookie(self._session, COOKIE_S)
        return wire.see_other("./" if right else "./?wrong")

    def post_logout(self) -> Any:
        self._own_origin()
        self._set_cookie("", 0)
        return wire.see_other("./")

    # -- who -------------------------------------------------------------------------------------------------------

    @property
    def _session(self) -> str:
        return access.session(self.token) if self.token else ""

    def may_change(self) -> bool:
        """Whether this request carries the login cookie."""
        given = bottle.request.get_cookie(COOKIE) or ""
        return bool(self.token) and access.same(given, self._session)

    def _may_read(self) -> bool:
        return self.config.read != "token" or self.may_change()

    def _read(self) -> Snapshot:
        if not self._may_read():
            self._bearer()
        return self.board.current

    def _change(self) -> None:
        if wire.header("Authorization") or not self.may_change():
            self._bearer()
        else:
            self._own_origin()

    def _own_origin(self) -> None:
        """A browser that sends another site's origin was sent by that site."""
        origin = wire.header("Origin")
        if origin and origin.partition("://")[2] != wire.header("Host"):
            proxied = wire.header("X-Forwarded-Host")
            if origin.partition("://")[2] != proxied:
                raise bottle.HTTPError(403, "this request comes from another site")

    def _bearer(self) -> None:
        kind, _, given = wire.header("Authorization").partition(" ")
        if kind.lower() != "bearer" or not given.strip():
            text = "a token is needed: send 'Authorization: Bearer TOKEN'; 'netspotctl token' on that machine shows it"
            raise bottle.HTTPError(401, text, WWW_Authenticate="Bearer")
        if not self._check(given.strip()):
            raise bottle.HTTPError(
                401, "wrong token; 'netspotctl token' shows the right one", WWW_Authenticate="Bearer"
            )

    def _check(self, given: str) -> bool:
        peer = bottle.request.environ.get("REMOTE_ADDR") or "local"
        wait_s = self._guesses.wait_s(peer)
        if wait_s:
            text = f"too many wrong tokens; wait {wait_s:.0f} s"
            raise bottle.HTTPError(429, text, Retry_After=str(math.ceil(wait_s)))
        if not self.token:
            raise bottle.HTTPError(403, "changes are off: there was no folder for the token; set state.dir and restart")
        right = access.same(given, self.token)
        if not right:
            self._guesses.wrong(peer)
        return right

    def _set_cookie(self, value: str, age_s: int) -> None:
        secure = bool(self.config.cert) or wire.header("X-Forwarded-Proto") == "https"
        path = self._base if self._base == "/" else self._base + "/"
        bottle.response.set_cookie(
            COOKIE, value, max_age=age_s, path=path, httponly=True, samesite="strict", secure=secure
        )

    # -- parts -----------------------------------------------------------------------------------------------------

    def _status(self, snapshot: Snapshot) -> Json:
        return views.status(self.board, snapshot)

    def _known(self, name: str) -> int:
        column = self.board.columns.get(name)
        if column is None:
            known = ", ".join(self.board.columns)
            raise bottle.HTTPError(404, f"there is no statistic {name[:60]!r}; there are: {known}")
        return column

    def _stat_or_all(self, body: Json) -> str:
        name = body.get("stat")
        if not isinstance(name, str) or not name:
            raise bottle.HTTPError(400, "stat: the name of a statistic, or 'all'")
        if name != "all":
            self._known(name)
        return name

    def _command(self, name: str, args: Json) -> Any:
        try:
            reply = self.commands.put(name, args)
            return reply.result(ANSWER_S)
        except CommandError as error:
            raise bottle.HTTPError(400, str(error)) from None
        except FutureTimeout:
            reply.cancel()
            raise bottle.HTTPError(
                503, f"the main loop did not answer within {ANSWER_S:g} s", Retry_After="5"
            ) from None

    def _tagged(self, tag: str, body: Callable[[], bytes], cache: str) -> Any:
        bottle.response.set_header("ETag", tag)
        bottle.response.set_header("Cache-Control", cache)
        known = wire.header("If-None-Match")
        if tag in known.replace("W/", ""):
            bottle.response.status = 304
            return b""
        return wire.packed(body())
