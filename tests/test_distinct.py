"""The bounded set of keys: exact while it can be, an unbiased estimate afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot.miner.distinct import KeySample, mix, pair

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


def test_mix_is_bijective_where_it_matters() -> None:
    assert len(np.unique(mix(np.arange(200_000, dtype=np.uint64)))) == 200_000
    assert int(mix(u64([0]))[0]) != 0
