"""`pool10x10-q128`: the same maps give the same codes, and the codes give the map back as far as they can."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.depth.tokenizer import Pool, tokenizer
from vpt_data.errors import UsageError


def drawn(count: int, seed: int = 0) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 90, (count, 2)).tolist()
    return [chance.integers(0, 256, size).astype(np.uint8) for size in sizes]


def test_one_by_one_and_together_and_in_threads() -> None:
    maps, pool = drawn(50), Pool()
    together = pool.encode(maps)
    assert (together == np.concatenate([pool.encode([one]) for one in maps])).all()
    with ThreadPoolExecutor(2) as threads:
        assert (together == np.concatenate(list(threads.map(lambda one: Pool().encode([one]), maps)))).all()
    assert pool.encode([]).shape == (0, 100)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_a_code_is_the_mean_of_its_cell(high: int, wide: int, seed: int) -> None:
    depth = np.random.default_rng(seed).integers(0, 256, (high, wide)).astype(np.uint8)
    # Each pixel ten times along both sides: then every cell holds whole pixels.
    fine = np.repeat(np.repeat(depth.astype(np.int64), 10, 0), 10, 1)
    sums = fine.reshape(10, high, 10, wide).sum((1, 3))
    assert (Pool().encode([depth])[0].reshape(10, 10) == sums // (2 * high * wide)).all()


def test_flat_maps_use_the_whole_range() -> None:
    codes = Pool().encode([np.full((17, 23), value, np.uint8) for value in (0, 1, 2, 254, 255)])
    assert codes[:, 0].tolist() == [0, 0, 1, 127, 127] and (codes == codes[:, :1]).all()


def test_codes_come_back() -> None:
    """Maps that have one value in each cell; a decoded map has it in the middle of the cell."""
    codes = np.random.default_rng(0).integers(0, 128, (20, 100)).astype(np.uint8)
    found = Pool().decode(codes)
    assert found.shape == (20, 320, 320) and found.dtype == np.uint8
    assert (np.abs(found[:, 16::32, 16::32].reshape(20, 100).astype(int) - (codes.astype(int) * 2 + 1)) <= 8).all()
    blocks = np.repeat(np.repeat(codes.reshape(20, 10, 10) * 2, 7, 1), 9, 2)
    assert (Pool().encode(list(blocks)) == codes).all()
    assert Pool().decode(codes[:0]).shape == (0, 320, 320)


def test_who_made_a_code() -> None:
    made = str(tokenizer("pool10x10-q128").identity("depth-anything-v1-vits"))
    assert made == "pool10x10-q128 weights=none filter=area values=0..255 depth=depth-anything-v1-vits"
    with pytest.raises(UsageError, match=r"^Unknown depth tokenizer 'pool10'; did you mean pool10x10-q128\?$"):
        tokenizer("pool10")
    with pytest.raises(UsageError, match="The depth model 'a b' becomes part of an id"):
        tokenizer("pool10x10-q128").identity("a b")
