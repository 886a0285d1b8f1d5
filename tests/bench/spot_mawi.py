"""Detection and false alarms on the SYN-ratio series of the KDD 2017 paper (MAWI, 17 and 18 August 2012).

    python tests/bench/spot_mawi.py

Calibrates on the last n_init values of the 17th and runs the 18th. TPR is the share of SYN-attack flows that lie in
alarmed windows, FPR the share of benign flows there. The data are not part of the project: NETSPOT_SHARED, or the
folder ``shared`` beside the checkout, has ``data/mawi2012.npz``.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from netspot.spot import Spot


def data_path() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("NETSPOT_SHARED", beside)) / "data" / "mawi2012.npz"


def score(q: float, n_init: int, **options: object) -> tuple[float, float, int]:
    """TPR, FPR and how often the detector began to learn anew."""
    with np.load(data_path()) as data:
        before, watch = data["mawi17_rSYN"], data["mawi18_rSYN"]
        attacks = np.nan_to_num(data["mawi18_nSYNatt"])
        benign = np.nan_to_num(data["mawi18_nFlows"] - data["mawi18_nAttacks"])
    spot = Spot(q=q, n_init=n_init, **options)
    for x in before[np.isfinite(before)][-n_init:].tolist():
        spot.update(x)
    verdicts = [spot.update(x) for x in watch.tolist()]
    alarmed = np.array([v.kind == "alarm" for v in verdicts])
    relearnt = sum(v.relearning for v in verdicts)
    return float(attacks[alarmed].sum() / attacks.sum()), float(benign[alarmed].sum() / benign.sum()), relearnt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print("| q | n_init | TPR | FPR | compat libspot: TPR | FPR |\n|---|---|---|---|---|---|")
    for q in (1e-3, 5e-4, 1e-4, 1e-5):
        for n_init in (1000, 2000):
            tpr, fpr, relearnt = score(q, n_init)
            if relearnt:
                print(f"learnt anew {relearnt} times:")
            published = score(q, n_init, compat="libspot", max_excess=200)
            print(f"| {q:g} | {n_init} | {tpr:.3f} | {fpr:.4f} | {published[0]:.3f} | {published[1]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
