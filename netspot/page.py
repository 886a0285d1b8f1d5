"""The status page beside the main loop: what it shows, and its server over all configurations."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import netspot
from netspot.config import WebConfig, to_dict
from netspot.exporters.base import StatInfo
from netspot.snapshot import Board, Info

if TYPE_CHECKING:
    from netspot.observe import Observer
    from netspot.service import Service

log = logging.getLogger("netspot")


def info(service: Service) -> Info:
    """What the page and a report say of the program around the numbers."""
    return Info(
        service.node,
        service.source.series,
        netspot.__version__,
        service.started_ns,
        service.config.analyzer.period_ns,
        tuple(StatInfo(w.name, w.stat.unit, w.stat.help) for w in service.analyzer.watches.values()),
    )


class Page:
    """The status page and the API; one server and, where it can, one board go on while configurations come and go.

    Called by the service once for each configuration, for those who look on.
    """

    def __init__(self) -> None:
        self._config: WebConfig | None = None
        self._folder: str | None = None  # of the token
        self._board: Board | None = None
        self._server: Any = None

    def __call__(self, service: Service) -> list[Observer]:
        """The board of what ``service`` watches now, a fresh one where that has changed, shown by the server."""
        about = info(service)
        if self._board is None or self._board.info != about:
            self._board = Board(about)
        board = self._board
        if self._server is not None and service.config.state.dir != self._folder:
            from netspot.web.access import ensure_token

            self._server.app.token = ensure_token(service.config.state.dir, self._server.app.token)
        self._folder = service.config.state.dir
        if service.config.web != self._config:
            self.close()
            self._config = service.config.web
            self._server = self._open(service, board)
        elif self._server is not None:
            self._server.app.board = board
        return [] if self._server is None else [board]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _open(self, service: Service, board: Board) -> Any:
        if service.config.web.listen is None:
            return None
        from netspot.web.server import WebServer

        server = WebServer(
            service.config.web,
            board,
            service.commands,
            lambda: to_dict(service.config),
            service.config.state.dir,
            lambda id: None if service.captures is None else service.captures.path(id),
        )
        server.start()
        log.info("the page is on %s", service.config.web.listen)
        return server
