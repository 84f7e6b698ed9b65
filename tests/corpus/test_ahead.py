"""Making the next item in a thread changes neither the items nor their order, nor what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.corpus.shards import ahead


@given(st.lists(st.integers()))
def test_the_same_items_in_the_same_order(items: list[int]) -> None:
    with ahead(iter(items)) as found:
        assert list(found) == items


def test_the_next_item_is_made_while_one_is_used_and_no_other() -> None:
    made: list[int] = []
    reached = [threading.Event() for _ in range(5)]

    def make() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            reached[number].set()
            yield number

    with ahead(make()) as found:
        for number in found:
            assert number == 4 or reached[number + 1].wait(20)
            assert len(made) <= number + 2


def test_an_error_comes_where_the_item_would_have() -> None:
    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"), ahead(make()) as found:
        seen.extend([next(found), next(found)])
        next(found)
    assert seen == [1, 2]


def test_the_thread_ends_with_the_block_though_items_are_left() -> None:
    before = threading.active_count()
    with ahead(iter(range(1000))) as found:
        assert next(found) == 0
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_an_error_of_the_user_is_not_hidden() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"), ahead(iter(range(1000))) as found:
        next(found)
        raise ValueError("mine")
    assert threading.active_count() == before
