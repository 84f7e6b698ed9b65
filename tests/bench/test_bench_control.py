"""The benchmark of the control vector: nothing but the vector can help, each route is changed alone, and a tiny run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from bench import control, seeds
from trainer.data.encode import RowEncoder


@pytest.fixture
def made() -> tuple[control.Routed, RowEncoder]:
    model, encoder = control.made(0)
    model.embedding = model.projector = control.same
    return model.eval(), encoder


def logits(model: control.Routed, encoder: RowEncoder, *some: control.Case) -> list[torch.Tensor]:
    """Of the first token of the answer."""
    samples = [control.sample(encoder, one) for one in some]
    with torch.no_grad():
        return [found[control.answer_at(one) - 1] for one, found in zip(samples, model.logits(samples), strict=True)]


def test_pairs_show_the_same_and_ask_for_different_quadrants() -> None:
    rows = control.pairs(20)
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert (one.grey, one.colours) == (other.grey, other.colours)
        assert one.asked != other.asked
        assert len(set(one.colours)) == 4
    assert len({one.colours for one in rows}) == 20


def test_every_colour_and_every_question_is_short_and_known() -> None:
    _, encoder = control.made(0)
    for colour in control.COLOURS:
        assert encoder.tokenizer.encode(colour).ids == [encoder.token_id(colour)]


def test_without_routes_the_answer_does_not_depend_on_the_question(made: tuple[control.Routed, RowEncoder]) -> None:
    model, encoder = made
    one = control.case(random.Random(0))
    other = one._replace(asked=(one.asked + 1) % 4)
    with_it = logits(model, encoder, one, other)
    assert not torch.allclose(*with_it)
    model.embedding = model.projector = None
    without = logits(model, encoder, one, other)
    assert torch.allclose(*without, atol=1e-5)


@pytest.mark.parametrize("route", ["embedding", "projector"])
def test_each_route_is_changed_alone_and_a_swap_of_both_is_the_other_row(
    made: tuple[control.Routed, RowEncoder], route: str
) -> None:
    model, encoder = made
    rows = control.pairs(1)
    before = logits(model, encoder, *rows)
    setattr(model, route, control.CHANGES["swap"])
    one = logits(model, encoder, *rows)
    assert not torch.allclose(before[0], one[0])
    model.embedding = model.projector = control.CHANGES["swap"]
    both = logits(model, encoder, *rows)
    # Nothing else of the prefix is seen, so with the vector of the other row everything is as in that row.
    assert torch.allclose(both[0], before[1], atol=1e-5)
    assert not torch.allclose(both[0], one[0])


def test_random_vectors_are_as_long_and_the_mean_is_the_same_for_all() -> None:
    vectors = torch.randn(6, 1, 8)
    changed = {name: change(vectors) for name, change in control.CHANGES.items()}
    assert torch.allclose(changed["random"].norm(dim=-1), vectors.norm(dim=-1))
    assert torch.allclose(changed["mean"], vectors.mean(0).expand(6, 1, 8))
    assert torch.equal(changed["swap"], vectors[[1, 0, 3, 2, 5, 4]])
    assert not changed["zero"].any()


def test_every_arm_ends_in_a_result_and_the_report_reads_them(tmp_path: Path) -> None:
    seeds.make(tmp_path, list(control.ARMS), 1, lambda arm, seed: control.one(arm, seed, 2, 3))
    tables = control.report(tmp_path)
    assert all(f"\n| {arm} | " in tables for arm in control.ARMS)
    assert tables.count(" | swap | ") == 5
