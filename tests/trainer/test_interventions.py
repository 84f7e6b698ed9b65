"""Interventions change what they say and nothing else, for each row by its id alone."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.evaluation.asking.questions import INTERVENTIONS
from trainer.generation.dialog import Shown
from trainer.generation.interventions import Cells, intervention, moved, shifted
from trainer.generation.policy import Dialog
from vpt_data.dialogue.tokens import REGION, grid

K = 8
#: Every pixel of a cell has the number of the cell.
PICTURE = Image.frombytes("L", (K, K), bytes(range(K * K))).resize((80, 80), Image.Resampling.NEAREST)
OWN, GOLD = (0, 0, 1, 0), (6, 6, 7, 7)


def dialog(name: str = "a", turns: list[str] | None = None) -> Dialog:
    return Dialog({"id": name}, images=[PICTURE], turns=turns or [])


def looked(cells: Cells = OWN) -> Shown:
    return Shown(REGION, cells, (0, 0, 20, 10))


def cells_of(image: Image.Image) -> set[int]:
    return set(image.convert("L").tobytes())


def shown(name: str, *looks: Shown, row: str = "a") -> list[Image.Image]:
    return intervention(name, {"a": GOLD}, K).show(dialog(row), looks)


def test_the_arms_of_the_crop() -> None:
    [oracle] = shown("crop=oracle", looked())
    assert (oracle.size, cells_of(oracle)) == ((20, 20), {54, 55, 62, 63})
    [whole] = shown("crop=whole", looked())
    assert whole.size == PICTURE.size
    assert shown("crop=none", looked()) == []
    [other] = shown("crop=shifted", looked())
    assert (other.size, cells_of(other)) == ((20, 10), {62, 63})
    [drawn] = shown("crop=random", looked())
    assert drawn.size == (20, 10)
    [unknown] = shown("crop=oracle", looked(), row="no box")
    assert cells_of(unknown) == {0, 1}


@pytest.mark.parametrize("arm", [name for name in INTERVENTIONS if name.startswith("crop=")])
def test_a_call_of_an_encoder_is_left_as_it_is(arm: str) -> None:
    [image] = shown(arm, Shown("dino"))
    assert image.size == PICTURE.size


def test_crops_grow_as_those_of_the_model_do() -> None:
    [image] = intervention("crop=oracle", {"a": (3, 3, 3, 3)}, K, expand=1).show(dialog(), [looked()])
    assert image.size == (30, 30)


def test_what_is_drawn_depends_on_the_row_alone() -> None:
    policy = intervention("crop=random", {}, K)
    first = {name: cells_of(policy.show(dialog(name), [looked()])[0]) for name in "abcdefgh"}
    again = {name: cells_of(policy.show(dialog(name), [looked()])[0]) for name in reversed("abcdefgh")}
    assert first == again
    assert len({frozenset(cells) for cells in first.values()}) > 3


def test_a_region_is_said_for_the_model() -> None:
    assert intervention("tokens=oracle", {"a": GOLD}, K).prefix(dialog()) == (
        grid.encode([GOLD], K)[0].as_py() + "<|im_end|>"
    )
    said = intervention("tokens=random", {"a": GOLD}, K).prefix(dialog())
    [cells] = grid.decode(said, K).cells
    assert (cells[2] - cells[0], cells[3] - cells[1]) == (1, 1)
    for name in ("tokens=oracle", "tokens=random"):
        policy = intervention(name, {"a": GOLD}, K)
        assert policy.prefix(dialog("no box")) == ""
        assert policy.prefix(dialog(turns=["it has looked"])) == ""
    own = {"a": grid.encode([GOLD], K)[0].as_py()}
    assert intervention("tokens=oracle", {"a": GOLD}, K, said=own).prefix(dialog()) == "", "it says so by itself"


def test_control_vectors_are_replaced_in_both_routes() -> None:
    vectors = torch.randn(3, 2, 16)
    rows = [dialog(name) for name in "abc"]
    fed, steers = intervention("control=zero", {}, K).vectors(vectors, rows, ["dino"] * 3)
    assert steers is not None
    assert not fed.any()
    assert not steers.any()
    policy = intervention("control=random", {}, K)
    fed, steers = policy.vectors(vectors, rows, ["dino"] * 3)
    assert fed is steers
    assert torch.allclose(fed.norm(dim=-1), vectors.norm(dim=-1))
    alone, _ = policy.vectors(vectors[1:2], rows[1:2], ["dino"])
    assert torch.allclose(alone, fed[1:2])
    assert not torch.allclose(fed, vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_control_vectors_of_others(dtype: torch.dtype) -> None:
    """Of the row and the encoder; a row for which there is none keeps its own."""
    vectors = torch.randn(3, 2, 4).to(dtype)
    other = np.arange(8, dtype=np.float32)
    policy = intervention("control=swap", {}, K, others={"a": {"dino": other}, "b": {"clip": other}})
    fed, steers = policy.vectors(vectors, [dialog(name) for name in "abc"], ["dino"] * 3)
    assert fed is steers
    assert fed.dtype == dtype
    assert fed[0].flatten().tolist() == list(range(8))
    assert torch.equal(fed[1:], vectors[1:])


RECTANGLES = st.tuples(*[st.integers(0, K - 1)] * 4).map(
    lambda four: (min(four[0], four[2]), min(four[1], four[3]), max(four[0], four[2]), max(four[1], four[3]))
)


def covered(cells: Cells) -> set[tuple[int, int]]:
    return {(col, row) for col in range(cells[0], cells[2] + 1) for row in range(cells[1], cells[3] + 1)}


@given(RECTANGLES, st.integers())
def test_other_places_have_the_same_size(cells: Cells, seed: int) -> None:
    for other in (moved(cells, K, random.Random(seed)), shifted(cells, K)):
        assert (other[2] - other[0], other[3] - other[1]) == (cells[2] - cells[0], cells[3] - cells[1])
        assert all(0 <= edge < K for edge in other)
    assert len(covered(shifted(cells, K)) & covered(cells)) <= len(
        covered(moved(cells, K, random.Random(seed))) & covered(cells)
    )


def test_every_place_is_drawn_alike() -> None:
    dice = random.Random(0)
    counts = Counter(moved((0, 0, 5, 6), K, dice) for _ in range(6000))
    assert len(counts) == 6
    assert min(counts.values()) > 850
