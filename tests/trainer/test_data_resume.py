"""A run that is stopped goes on where it was, on any number of ranks and workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loaders import row_encoder, talks, write_shards

from trainer.data.corpus import Corpus, open_corpus
from trainer.data.loader import Loader, Micro, Settings
from vpt_data.errors import UsageError

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

ROWS = [row["id"] for row in talks(100)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(str(write_shards(tmp_path_factory.mktemp("shards"), talks(100))))


def run(
    corpus: Corpus, world: int, state: dict[str, Any] | None, stop: int | None, **options: Any
) -> tuple[list[list[Micro]], dict[str, Any]]:
    """`stop` steps (None: to the end) on every rank -> micro-batches by rank, and the state, the same on all."""
    found, states = [], []
    for rank in range(world):
        chosen = Settings(**{"rows": 14, "tokens": 512, "window": 30, "epochs": 2, **options})
        reader = Loader(corpus, row_encoder(), chosen, rank=rank, world=world)
        if state:
            reader.restore(json.loads(json.dumps(state)))
        micros, steps = [], 0
        if stop != 0:
            for micro in reader:
                micros.append(micro)
                steps += micro.last
                if steps == stop:
                    break
        found.append(micros)
        states.append(reader.state())
    assert all(one == states[0] for one in states)
    return found, states[0]


def ids(ranks: list[list[Micro]]) -> list[str]:
    return [sample.id for rank in ranks for micro in rank for sample in micro.samples]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), max_size=3), st.integers(1, 4), st.data())
def test_nothing_is_lost_or_repeated(
    corpus: Corpus, stops: list[tuple[int, int]], last: int, data: st.DataObject
) -> None:
    seen: list[str] = []
    state: dict[str, Any] | None = None
    for world, steps in stops:
        rows = data.draw(st.sampled_from([5, 14, 40]))
        ranks, state = run(corpus, world, state, steps, rows=rows, epochs=1)
        seen += ids(ranks)
    ranks, state = run(corpus, last, state, None, epochs=1)
    assert sorted(seen + ids(ranks)) == sorted(ROWS)
    assert (state["epoch"], state["position"]) == (1, 0)


@pytest.mark.parametrize("stop", [1, 7, 8, 11])
def test_the_same_batches_at_the_same_number_of_ranks(corpus: Corpus, stop: int) -> None:
    """Seven steps of 14 rows and one of 2 are an epoch; the second epoch has another order."""
    whole, end = run(corpus, 2, None, None)
    begun, state = run(corpus, 2, None, stop)
    rest, finished = run(corpus, 2, state, None)
    for rank in range(2):
        once = [(micro.epoch, micro.position, ids([[micro]])) for micro in whole[rank]]
        twice = [(micro.epoch, micro.position, ids([[micro]])) for micro in begun[rank] + rest[rank]]
        assert once == twice
    assert end == finished
    assert [micro.position for micro in whole[0] if micro.last] == 2 * [*range(14, 100, 14), 100]


def test_the_coins_of_mask_modelling_are_those_of_seed_and_epoch(corpus: Corpus) -> None:
    """On any number of ranks, after a resume, and others in the second epoch."""

    def coins(ranks: list[list[Micro]]) -> dict[tuple[int, str], bool]:
        micros = [micro for rank in ranks for micro in rank]
        return {(micro.epoch, sample.id): sample.masked for micro in micros for sample in micro.samples}

    whole, _ = run(corpus, 1, None, None, mask=0.5)
    begun, state = run(corpus, 2, None, 5, mask=0.5)
    rest, _ = run(corpus, 3, state, None, mask=0.5)
    expected = coins(whole)
    assert len(expected) == 200 and coins(begun) | coins(rest) == expected
    epochs = [[expected[epoch, id] for id in ROWS] for epoch in (0, 1)]
    assert 30 < sum(epochs[0]) < 70 and 30 < sum(one != other for one, other in zip(*epochs, strict=True)) < 70
    assert not any(coins(run(corpus, 1, None, None)[0]).values())


def test_another_number_of_workers(corpus: Corpus) -> None:
    whole, _ = run(corpus, 1, None, None)
    begun, state = run(corpus, 1, None, 3, workers=2)
    rest, _ = run(corpus, 1, state, None, workers=1)
    assert ids(begun) + ids(rest) == ids(whole)


def test_what_was_fetched_ahead_is_not_consumed(corpus: Corpus) -> None:
    _, state = run(corpus, 1, None, 2, workers=2)
    assert (state["epoch"], state["position"]) == (0, 28)


def test_a_finished_run_has_nothing_more(corpus: Corpus) -> None:
    _, state = run(corpus, 1, None, None)
    assert run(corpus, 3, state, None)[0] == [[], [], []]


def test_another_order_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    _, state = run(corpus, 1, None, 2)
    other = open_corpus(str(write_shards(tmp_path, talks(99))))
    with pytest.raises(UsageError) as caught:
        run(other, 1, state, None)
    assert str(caught.value) == (
        f"This run was in the middle of an epoch with corpus {corpus.identity}, and now corpus is {other.identity}; "
        "continue with the same corpus and settings, or start a new run from its weights"
    )
    with pytest.raises(
        UsageError, match=r"^This run was in the middle of an epoch with seed 0, and now seed is 1; continue "
    ):
        run(corpus, 1, state, None, seed=1)
    with pytest.raises(UsageError, match=r"with window 30, and now window is 31; continue with the same corpus"):
        run(corpus, 1, state, None, window=31)
