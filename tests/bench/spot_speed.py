"""What a value costs, in CPU time of the thread, beside the package libspot (in C).

python tests/bench/spot_speed.py
"""

import time
from collections.abc import Callable

import numpy as np

from netspot.spot import Spot

VALUES = 100_000
STATISTICS = 20


def each(step: Callable[[float], object], values: list[float]) -> float:
    """Mean cost of a step [us]."""
    start = time.thread_time()
    for x in values:
        step(x)
    return 1e6 * (time.thread_time() - start) / len(values)


def windows(options: dict[str, object], values: list[float]) -> list[float]:
    """Cost of one window of `STATISTICS` detectors, thresholds read as for a message [us]."""
    spots = [Spot(**options) for _ in range(STATISTICS)]
    columns = [values[i::STATISTICS] for i in range(STATISTICS)]
    costs = []
    for row in zip(*columns, strict=True):
        start = time.thread_time()
        for spot, x in zip(spots, row, strict=True):
            spot.update(x)
            _ = spot.up
        costs.append(1e6 * (time.thread_time() - start))
    return costs[1001:]


def main() -> None:
    values = np.random.default_rng(20_000).standard_normal(2 * VALUES).tolist()
    print("| detector | normal value [us] | mean, fits included [us] | a window of 20: median [us] | 99 % | most |")
    print("|---|---|---|---|---|---|")
    for name, options in (
        ("default", {}),
        ("max_excess 200", {"max_excess": 200}),
        ("both tails", {"down": True}),
        ("depth 50", {"depth": 50}),
        ("compat libspot, max_excess 200", {"compat": "libspot", "max_excess": 200}),
    ):
        spot = Spot(**options)
        each(spot.update, values[:VALUES])
        mean = each(spot.update, values[VALUES:])
        normal = each(spot.update, [0.1] * VALUES)
        w = np.array(windows(options, values))
        print(
            f"| {name} | {normal:.2f} | {mean:.2f} | {np.median(w):.0f} | {np.quantile(w, 0.99):.0f} | {w.max():.0f} |"
        )
    try:
        import libspot
    except ImportError:
        return
    oracle = libspot.Spot(1e-4, low=0, level=0.98, max_excess=200)
    oracle.fit(np.array(values[:1000]))
    mean = each(oracle.step, values[VALUES:])
    print(f"| the package libspot (C), max_excess 200 | {each(oracle.step, [0.1] * VALUES):.2f} | {mean:.2f} | | | |")


if __name__ == "__main__":
    main()
