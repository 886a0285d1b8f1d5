"""Alarms on a stream of numbers, at a rate that is chosen beforehand.

`Spot` is the whole interface: build one per stream, give it each value, read the `Verdict`. It knows nothing of
packets, reads no file and keeps no global state, so it may be used as a library on its own.

>>> import random
>>> from netspot.spot import Spot
>>> draw = random.Random(1)
>>> spot = Spot(q=1e-4, n_init=1000)
>>> kinds = {spot.update(draw.gauss(0, 1)).kind for _ in range(1000)}
>>> kinds, spot.update(0.1).kind, spot.update(9.0).kind
({'learning'}, 'normal', 'alarm')
"""

from netspot.spot.detector import Spot, Verdict

__all__ = ["Spot", "Verdict"]
