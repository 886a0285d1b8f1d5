"""The bounded set of keys: exact while it can be, an unbiased estimate afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot.miner import distinct
from netspot.miner.distinct import STEPS, KeySample, mix, pair

keys = st.lists(st.integers(0, (1 << 64) - 1), max_size=300)


def u64(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


@settings(max_examples=100, derandomize=True)
@given(st.lists(keys, max_size=5))
def test_few_keys_are_counted_exactly(batches: list[list[int]]) -> None:
    sample = KeySample(2048)
    for batch in batches:
        sample.add(u64(batch))
    assert sample.count() == len({key for batch in batches for key in batch})


@settings(max_examples=100, derandomize=True)
@given(keys, keys)
def test_the_union_of_samples_is_the_sample_of_the_union(one: list[int], other: list[int]) -> None:
    for limit in (16, 1024):
        first, second, both = KeySample(limit), KeySample(limit), KeySample(limit)
        first.add(u64(one))
        second.add(u64(other))
        both.add(u64(one + other))
        first.merge(second)
        assert first.count() == both.count()


@pytest.mark.parametrize("true", [5_000, 50_000, 1_000_000])
def test_many_keys_are_estimated(true: int) -> None:
    estimates = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sample = KeySample(4096)
        for part in np.array_split(rng.integers(0, 1 << 63, true, np.uint64), 10):
            sample.add(part)
        assert len(sample._slots) <= 4096
        estimates.append(sample.count())
    assert np.mean(estimates) == pytest.approx(true, rel=0.02)
    assert np.std(estimates) / true < 2.5 * 1.2 / np.sqrt(4096)


def test_the_order_and_the_batches_make_no_difference() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 1 << 63, 30_000, np.uint64)
    one, other = KeySample(1000), KeySample(1000)
    one.add(values)
    for part in np.array_split(values[::-1], 77):
        other.add(part)
    assert one.count() == other.count()


def test_largest_group() -> None:
    sample = KeySample(1024, grouped=True)
    assert sample.largest() == (0, 0)
    groups, items = u64([1, 1, 1, 2, 2]), u64([5, 6, 6, 5, 6])
    sample.add(pair(groups, items), groups)
    assert sample.largest() == (1, 2)  # a tie goes to the smaller
    sample.add(pair(u64([2]), u64([7])), u64([2]))
    assert sample.largest() == (2, 3)
    sample.clear()
    assert sample.count() == 0 and sample.largest() == (0, 0)


def test_a_flood_makes_no_group_look_large_and_hides_none_that_is() -> None:
    ordinary, scanner = np.arange(40, dtype=np.uint64), np.uint64(77)
    most, scans = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = KeySample(4096, grouped=True)
        groups = np.concatenate([np.repeat(ordinary, 36), rng.integers(1000, 1 << 32, 100_000, np.uint64)])
        sample.add(pair(groups, rng.integers(0, 1 << 63, len(groups), np.uint64)), groups)
        most.append(sample.largest()[1])
        groups = np.repeat(scanner, 2000)
        sample.add(pair(groups, rng.integers(0, 1 << 63, 2000, np.uint64)), groups)
        scans.append(sample.largest())
    assert max(most) <= 36, most  # the estimates themselves: 96 to 192
    assert all(group == scanner and 1000 < count < 2200 for group, count in scans), scans


def test_mix_is_bijective_where_it_matters() -> None:
    assert len(np.unique(mix(np.arange(200_000, dtype=np.uint64)))) == 200_000
    assert int(mix(u64([0]))[0]) != 0


class Counted(np.ndarray):
    """A table that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, where: object) -> np.ndarray:  # type: ignore[override]
        Counted.looks += 1
        return np.asarray(super().__getitem__(where))  # type: ignore[call-overload]


def looks(sample: KeySample, added: np.ndarray) -> int:
    """How often ``sample`` looks at its table while ``added`` are added: three times a step, and once before."""
    sample._table = sample._table.view(Counted)
    Counted.looks = 0
    sample.add(added)
    return Counted.looks


def unshifted(h: np.ndarray) -> np.ndarray:
    x = h
    for _ in range(3):
        x = h ^ x >> np.uint64(31)
    return x


def inverse(number: np.uint64) -> np.uint64:
    return np.uint64(pow(int(number), -1, 1 << 64))


def one_chain(n: int) -> np.ndarray:
    """Hashes with the same upper 16 bits, the same 16 below them, and the same lower 24."""
    return np.uint64(0x1234_5678) << np.uint64(32) | np.arange(1, n + 1, dtype=np.uint64) << np.uint64(8)


def test_keys_chosen_for_the_fixed_hash_take_no_more_steps_than_others() -> None:
    h = unshifted(one_chain(30_000)) * inverse(distinct._M2)
    chosen = unshifted(unshifted(h) * inverse(distinct._M1)) - distinct._SALT
    assert (mix(chosen) == one_chain(30_000)).all()
    for n in (2000, 30_000):
        sample = KeySample(32_768)
        assert looks(sample, chosen[:n]) < 1 + 3 * 40 and sample.count() == n
        assert looks(sample, chosen[n - 10 : n]) < 1 + 3 * 40 and sample.count() == n


def test_even_keys_that_know_the_secret_are_bounded() -> None:
    h = unshifted(one_chain(2000) * inverse(distinct._SECRET[1])) * inverse(distinct._SECRET[0])
    chosen = unshifted(h) - distinct._SALT
    sample = KeySample(32_768)
    assert looks(sample, chosen) <= 1 + 4 * STEPS
    assert sample.count() == STEPS  # one a step; the others find no place and are not counted
    others = np.arange(20_000, dtype=np.uint64)
    sample.add(others)
    assert sample.count() == STEPS + 20_000


def test_keys_that_pass_every_level_cost_one_rebuild() -> None:
    """Hashes that end in 24 zero bits: the levels on which nothing goes are stepped over."""
    h = unshifted(np.arange(1, 6001, dtype=np.uint64) << np.uint64(24)) * inverse(distinct._M2)
    chosen = unshifted(unshifted(h) * inverse(distinct._M1)) - distinct._SALT
    sample = KeySample(4096)
    assert looks(sample, chosen) < 400
    assert sample._level == 25 and sample.count() == 3000 << 25


def test_the_same_numbers_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    groups, items = rng.integers(0, 40, 30_000, np.uint64), rng.integers(0, 1 << 16, 30_000, np.uint64)
    found = set()
    for _ in range(3):
        monkeypatch.setattr(distinct, "_SECRET", rng.integers(0, 1 << 63, 2, np.uint64) | np.uint64(1))
        sample = KeySample(1000, grouped=True)
        for some in np.array_split(np.arange(30_000), 7):
            sample.add(pair(groups[some], items[some]), groups[some])
        found.add((sample.count(), sample.largest()))
    assert len(found) == 1
