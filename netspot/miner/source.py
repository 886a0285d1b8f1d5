"""What a source of packets is."""

from __future__ import annotations

from typing import Protocol

from netspot.packets import PacketBatch


class Source(Protocol):
    """A capture file or an interface. Used by the main loop's thread alone."""

    series: str  # the interface, or the base name of the capture file
    live: bool  # time goes on although no packet comes

    def read(self, timeout_s: float) -> PacketBatch | None:
        """The packets since the last call, perhaps none, or None at the end of a capture.

        A live source waits until there are some, at most ``timeout_s`` [s]; its watermark is the time at which it
        looked. A capture's watermark is the highest timestamp that was read. A batch holds at most 65,536 packets.
        Raises SourceError, CutCapture.
        """

    def close(self) -> None:
        """Free everything; a second call does nothing."""
