"""Realised false-alarm rates of the detector on independent values, beside those of the package libspot.

    python tests/bench/spot_rates.py                     # the table of docs/detector.md
    python tests/bench/spot_rates.py --runs 5 --seed 1   # a quick look, on seeds for development

A run is one stream of 1e5 independent values. Its rate is the true probability of a value beyond the threshold,
averaged over the values after calibration: no counting, so no counting noise. Seeds below 20,000 are for development;
the figures of the documentation use 20,000 and above.
"""

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from netspot.spot import Spot

REPORT_SEED = 20_000
VALUES = 100_000
EVERY = 100

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
Survival = Callable[[float], float]
LAWS: dict[str, tuple[Draw, Survival]] = {
    "gaussian": (lambda g, n: g.standard_normal(n), lambda z: 0.5 * math.erfc(z / math.sqrt(2))),
    "exponential": (lambda g, n: g.standard_exponential(n), lambda z: min(1.0, math.exp(-z))),
    "log-normal": (lambda g, n: np.exp(g.standard_normal(n)), lambda z: 0.5 * math.erfc(math.log(z) / math.sqrt(2))),
    "pareto(1.5)": (lambda g, n: 1 + g.pareto(1.5, n), lambda z: min(1.0, z**-1.5)),
    "uniform": (lambda g, n: g.random(n), lambda z: min(max(1 - z, 0.0), 1.0)),
}


def rate(law: str, seed: int, q: float, n_init: int, **options: object) -> float:
    """Realised rate of `Spot` on one stream, as a multiple of q."""
    draw, survival = LAWS[law]
    values = draw(np.random.default_rng(seed), VALUES).tolist()
    spot = Spot(q=q, n_init=n_init, **options)
    for x in values[:n_init]:
        spot.update(x)
    total, update = 0.0, spot.update
    for start in range(n_init, VALUES, EVERY):
        total += survival(spot.up)
        for x in values[start : start + EVERY]:
            update(x)
    return total / math.ceil((VALUES - n_init) / EVERY) / q


def rate_of_libspot(law: str, seed: int, q: float, n_init: int) -> float:
    """The same for the package libspot with its defaults."""
    import libspot

    draw, survival = LAWS[law]
    values = draw(np.random.default_rng(seed), VALUES)
    spot = libspot.Spot(q, low=0, level=0.98, max_excess=200)
    spot.fit(values[:n_init])
    total, step = 0.0, spot.step
    for start in range(n_init, VALUES, EVERY):
        total += survival(spot.anomaly_threshold)
        for x in values[start : start + EVERY].tolist():
            step(x)
    return total / math.ceil((VALUES - n_init) / EVERY) / q


def cells() -> Iterator[tuple[str, float, int]]:
    for law in LAWS:
        for q in (1e-3, 1e-4):
            for n_init in (1000, 2000):
                yield law, q, n_init


def summary(rates: list[float]) -> str:
    within = sum(0.5 <= r <= 2 for r in rates) / len(rates)
    return f"{100 * within:3.0f} % | {np.mean(rates):5.2f} | {min(rates):5.2f} .. {max(rates):6.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="streams a cell")
    parser.add_argument("--seed", type=int, default=REPORT_SEED, help="seed of the first stream")
    parser.add_argument("--libspot", action="store_true", help="measure the package libspot too")
    args = parser.parse_args()
    print("| law | q | n_init | within | mean | extremes |" + " libspot: within | mean | extremes |" * args.libspot)
    print("|---|---|---|---|---|---|" + "---|---|---|" * args.libspot)
    for law, q, n_init in cells():
        seeds = range(args.seed, args.seed + args.runs)
        row = f"| {law} | {q:g} | {n_init} | " + summary([rate(law, s, q, n_init) for s in seeds]) + " |"
        if args.libspot:
            row += " " + summary([rate_of_libspot(law, s, q, n_init) for s in seeds]) + " |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
