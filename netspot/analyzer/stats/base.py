"""What a statistic is."""

from __future__ import annotations

import math
from collections.abc import Callable

from netspot.record import Record

Compute = Callable[..., float]

TIE = 1.01  # in margins of small counts: six is no more than 1.5 times four, though the four have faded a little

LOG_RANGE = "log1p takes a lowest value above -1 and a greater highest one, such as [0, null]"


class Stat(Record):
    """A number made of the counts of one window: a pure function, declared with what a reader and a detector must know.

    ``compute`` is called with the counts that ``needs`` names, in that order, and says NaN where the window holds
    nothing to compare with: silence teaches a detector nothing.

    A tail law fitted to a thousand windows is extrapolated a thousandfold to reach one false alarm a day. Two floors
    keep that honest: an alarm must reach ``least``, below which nobody would care, and exceed ``margin`` times the
    greatest value that was normal in the last days.
    """

    name: str
    unit: str  # of the value; "1" for a ratio
    help: str  # one line that a person understands
    needs: tuple[str, ...]
    compute: Compute
    range: tuple[float, float] = (0.0, math.inf)  # values that are possible at all
    log: bool = False  # watched as log(1 + value): for rates, whose size varies by factors
    least: float = -math.inf  # smallest value over one period that may alarm
    margin: float = 0.0  # by which factor an alarm exceeds the greatest normal value; 0: no such floor
    watched: bool = True  # has a detector

    def least_over(self, span: int) -> float:
        """``least`` over ``span`` periods: the noise of a rate falls with the root of the time, a number stays one."""
        return self.least / math.sqrt(span) if self.unit.endswith("/s") else self.least


def ratio(part: float, whole: float) -> float:
    """``part / whole``, or NaN when the window holds nothing to compare with."""
    return part / whole if whole else math.nan


def rate(count: float, source_time_ns: float) -> float:
    """``count`` a second."""
    return count * 1e9 / source_time_ns if source_time_ns else math.nan


def number(count: float) -> float:
    """The count itself, as for distinct addresses: they do not add up over time."""
    return count
