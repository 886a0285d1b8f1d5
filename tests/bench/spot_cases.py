"""The detector on streams that break others: ties, constants, values that pile up at a bound, changes of level.

    python tests/bench/spot_cases.py                                # the tables of docs/detector.md
    python tests/bench/spot_cases.py --runs 2 --shifts 5 --seed 1   # a quick look, on seeds for development

A run is one stream of 1e5 values; what counts is how many of them raise an alarm, and the longest step (CPU time of the
thread, the best of three runs over the same stream: other processes disturb a single one). Seeds below 20,000 are for
development; the figures of the documentation use 20,000 and above.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from netspot.spot import Spot

REPORT_SEED = 20_000
VALUES = 100_000
EVENT_GAP = 20
INFINITE = (-np.inf, np.inf)

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
STREAMS: dict[str, tuple[Draw, tuple[float, float]]] = {
    "constant": (lambda g, n: np.full(n, 3.0), INFINITE),
    "97 % zeros, else exponential": (lambda g, n: np.where(g.random(n) < 0.97, 0.0, g.exponential(size=n)), INFINITE),
    "99.9 % zeros, else exponential": (
        lambda g, n: np.where(g.random(n) < 0.999, 0.0, g.exponential(size=n)),
        INFINITE,
    ),
    "Poisson(0.5)": (lambda g, n: g.poisson(0.5, n).astype(np.float64), INFINITE),
    "Poisson(5)": (lambda g, n: g.poisson(5, n).astype(np.float64), INFINITE),
    "one in 100 is 1, else 0": (lambda g, n: (g.random(n) < 0.01).astype(np.float64), (0, 1)),
    "beta(2, 5)": (lambda g, n: g.beta(2, 5, n), (0, 1)),
    "beta(5, 1)": (lambda g, n: g.beta(5, 1, n), (0, 1)),
    "beta(0.5, 0.5)": (lambda g, n: g.beta(0.5, 0.5, n), (0, 1)),
    "1.0 in 73 %, else beta(5, 2)": (lambda g, n: np.where(g.random(n) < 0.73, 1.0, g.beta(5, 2, n)), (0, 1)),
    "ratio of small counts": (lambda g, n: small_ratio(g, n), (0, 1)),
}


def small_ratio(g: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Share of marked packets among a Poisson number of them: many ties, and now and then 1 of 1."""
    packets = 1 + g.poisson(5, n)
    return g.binomial(packets, 0.05) / packets


def alarms(values: list[float], **options: object) -> int:
    update = Spot(**options).update
    return sum(update(x).kind == "alarm" for x in values)


def longest_step(values: list[float], **options: object) -> float:
    """CPU time of the longest step after calibration [s]: the least that three runs needed for each step."""
    best = np.full(len(values), np.inf)
    clock = time.thread_time
    for _ in range(3):
        update = Spot(**options).update
        spent = np.empty(len(values))
        for i, x in enumerate(values):
            start = clock()
            update(x)
            spent[i] = clock() - start
        best = np.minimum(best, spent)
    return float(best.max())


def shift(seed: int, sigmas: float, q: float, n_init: int, law: str = "standard_normal") -> dict[str, float]:
    """What a level shift after 5,000 values does: alarm events, alarms when it should be quiet, z by a fresh fit."""
    draw = getattr(np.random.default_rng(seed), law)
    before, after = draw(5000).tolist(), (draw(4 * n_init + 2000) + sigmas).tolist()
    spot = Spot(q=q, n_init=n_init)
    fresh = Spot(q=q, n_init=2 * n_init)
    for x in before:
        spot.update(x)
    alarmed, highest, late, relearnt_at = [], 0.0, 0.0, len(after)
    for i, x in enumerate(after):
        verdict = spot.update(x)
        if verdict.kind == "alarm":
            alarmed.append(i)
        if verdict.relearning:
            relearnt_at = i
        highest = max(highest, spot.up or 0.0)
        if i < 2 * n_init:
            fresh.update(x)
        if i == relearnt_at + 2 * n_init:
            late = spot.up or 0.0
    quiet = relearnt_at + 1 + n_init
    within = [i for i in alarmed if i < quiet + n_init]
    reference = fresh.up or np.nan
    return {
        "events": int((np.diff(within) > EVENT_GAP).sum()) + 1 if within else 0,
        "relearnt after": relearnt_at + 1,
        "alarms in the n_init values after": sum(quiet <= i < quiet + n_init for i in alarmed),
        "z / fresh fit after 2 n_init": late / reference,
        "highest z / fresh fit": highest / reference,
    }


def print_streams(seeds: range) -> None:
    print("| stream | tail | q | alarms / (q n): mean | most | longest step [ms] |\n|---|---|---|---|---|---|")
    for name, (draw, bounds) in STREAMS.items():
        for up in (True, False):
            for q in (1e-3, 1e-4):
                options = {"q": q, "range": bounds, "up": up, "down": not up}
                streams = [draw(np.random.default_rng(s), VALUES).tolist() for s in seeds]
                rates = [alarms(values, **options) / (q * VALUES) for values in streams]
                slowest = 1e3 * longest_step(streams[0], **options)
                side = "up" if up else "down"
                print(
                    f"| {name} | {side} | {q:g} | {np.mean(rates):.2f} | {max(rates):.2f} | {slowest:.2f} |", flush=True
                )


def print_shifts(seeds: range) -> None:
    print("| shift [sigma] | q | most events | relearnt after | z / fresh fit after 2 n_init | highest z / fresh fit |")
    print("|---|---|---|---|---|---|")
    for law, sigmas, q in (
        ("standard_normal", 6, 1e-3),
        ("standard_normal", 6, 1e-4),
        ("standard_normal", 4, 1e-4),
        ("standard_normal", 10, 1e-4),
        ("standard_exponential", 6, 1e-4),
        ("standard_exponential", 10, 1e-4),
    ):
        runs = [shift(s, sigmas, q, 1000, law) for s in seeds]
        events = max(r["events"] for r in runs)
        after = [int(r["relearnt after"]) for r in runs]
        ratios = [r["z / fresh fit after 2 n_init"] for r in runs]
        highest = max(r["highest z / fresh fit"] for r in runs)
        print(
            f"| {law} +{sigmas} | {q:g} | {events} | {min(after)} .. {max(after)} "
            f"| {min(ratios):.2f} .. {max(ratios):.2f} | {highest:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="streams a row; 0 for none of that table")
    parser.add_argument("--shifts", type=int, default=40, help="changes of level a row; 0 for none of that table")
    parser.add_argument("--seed", type=int, default=REPORT_SEED, help="seed of the first stream")
    args = parser.parse_args()
    if args.runs:
        print_streams(range(args.seed, args.seed + args.runs))
    if args.shifts:
        print_shifts(range(args.seed, args.seed + args.shifts))


if __name__ == "__main__":
    main()
