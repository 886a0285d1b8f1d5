"""An extension of netspot: two counters, two statistics, and an exporter that keeps a tally of incidents in a file.

``pip install .`` beside netspot makes them known: ``netspot ls``, ``analyzer.stats: [MDNS, MDNS_TALKERS]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from netspot.analyzer.stats import Stat
from netspot.analyzer.stats.base import number, rate
from netspot.events import Event, Incident
from netspot.exporters.base import Context, Message
from netspot.miner.counters import Counter
from netspot.miner.counters.base import distinct, packets
from netspot.packets import Bools, PacketBatch


def mdns(batch: PacketBatch) -> Bools:
    """Multicast DNS, RFC 6762: UDP from and to port 5353."""
    return batch.is_udp & (batch.src_port == 5353) & (batch.dst_port == 5353)


COUNTERS: tuple[Counter, ...] = (
    packets("MDNS", "multicast DNS messages", mdns),
    distinct("MDNS_SOURCES", "distinct senders of multicast DNS", "address", lambda b: b.src_key, mdns),
)

STATS: tuple[Stat, ...] = (
    Stat("MDNS", "packet/s", "multicast DNS a second", ("MDNS", "SOURCE_TIME"), rate, log=True, least=20, margin=2),
    Stat("MDNS_TALKERS", "address", "hosts that speak multicast DNS", ("MDNS_SOURCES",), number, least=5, margin=1.5),
)


class Tally:
    """How many incidents there were, in a file beside what netspot learned."""

    name = "tally"
    kinds: frozenset[type[Event]] = frozenset({Incident})

    def __init__(self, context: Context) -> None:
        self._path = Path(context.state_dir, "tally") if context.state_dir else None
        self._count = 0

    def start(self) -> None:
        """Nothing to open."""

    def write(self, event: Event, message: Message) -> None:
        if message["event_type"] == "opened" and self._path is not None:
            self._count += 1
            self._path.write_text(f"{self._count} {message['title']}\n")

    def health(self) -> Mapping[str, int]:
        return {"dropped": 0, "incidents": self._count}

    def close(self) -> None:
        """Nothing to free."""
