"""Counters of IP packets. IPv6 counts everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netspot.miner.counters.base import Counter, balance, distinct, packets, volume
from netspot.miner.distinct import pair
from netspot.miner.headers import constant
from netspot.packets import Bools, PacketBatch

U64 = NDArray[np.uint64]
_DST = constant(np.uint64, 0xD1342543DE82EF95)  # odd, its bits without order: no two pairs of addresses have one sum
_ONE = constant(np.int8, 1)
_SRC_PORT, _DST_PORT = constant(np.uint64, 24), constant(np.uint64, 8)


def flow(batch: PacketBatch) -> U64:
    """One key for addresses, ports and protocol, of one direction."""
    ports = batch.src_port.astype(np.uint64) << _SRC_PORT | batch.dst_port.astype(np.uint64) << _DST_PORT
    return pair(batch.src_key + batch.dst_key * _DST, ports | batch.ip_proto)


def outward(batch: PacketBatch) -> Bools:
    """Packets from home to the outside."""
    return batch.src_home & ~batch.dst_home & ~batch.dst_multicast


def inward(batch: PacketBatch) -> Bools:
    """Packets from the outside to home."""
    return batch.dst_home & ~batch.src_home


def crossing(batch: PacketBatch) -> NDArray[np.int32]:
    """Bytes that leave home, with a minus those that come [byte]."""
    way = batch.src_home.view(np.int8) - batch.dst_home.view(np.int8)
    way &= batch.dst_multicast.view(np.int8) - _ONE  # 0 there, else unchanged: a product of bytes costs more
    return batch.ip_len.view(np.int32) * way.astype(np.int32)


COUNTERS: tuple[Counter, ...] = (
    packets("IP", "IPv4 and IPv6 packets", lambda b: b.is_ipv4 | b.is_ipv6),
    packets("IPV4", "IPv4 packets", lambda b: b.is_ipv4),
    packets("IPV6", "IPv6 packets", lambda b: b.is_ipv6),
    volume("IP_BYTES", "bytes of IP packets, headers included", lambda b: b.ip_len),
    volume(
        "UP_BYTES",
        "bytes of IP packets from home to the outside",
        lambda b: b.ip_len * outward(b),
    ),
    volume("DOWN_BYTES", "bytes of IP packets from the outside to home", lambda b: b.ip_len * inward(b)),
    balance(
        "UPLOAD",
        "most bytes that one home address sends to the outside beyond those that it gets from there",
        "byte",
        lambda b: np.where(b.src_home, b.src_key, b.dst_key),
        crossing,
    ),
    packets("FRAGMENTS", "parts of fragmented IP packets", lambda b: b.is_fragment),
    distinct("NB_UNIQ_SRC_ADDR", "distinct source addresses", "address", lambda b: b.src_key, lambda b: b.has_addr),
    distinct(
        "NB_UNIQ_DST_ADDR", "distinct destination addresses", "address", lambda b: b.dst_key, lambda b: b.has_addr
    ),
    distinct("FLOWS", "distinct flows: addresses, ports and protocol", "flow", flow, lambda b: b.has_addr),
)
