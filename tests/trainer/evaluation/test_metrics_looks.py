"""Regions and calls: scores against boxes and cells, the ceiling of the grid, causes of looks that cannot be used."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_docs import DOCS, names, tables

from trainer.evaluation.metrics import looks, regions
from trainer.evaluation.metrics.table import BENCHMARKS, METRICS, metric_of
from vpt_data import geometry, recipe
from vpt_data.dialogue.tokens import grid
from vpt_data.dialogue.tokens.reencode import action_turn
from vpt_data.errors import UsageError
from vpt_data.synthetic.plates import RECIPES

K = 8


def spoken(*cells: tuple[int, int, int, int]) -> str:
    return "".join(pa.concat_arrays([grid.encode([each], K) for each in cells]).to_pylist())


@st.composite
def boxes_on_images(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    width, height = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
    x = sorted([draw(st.floats(0, width)), draw(st.floats(0, width))])
    y = sorted([draw(st.floats(0, height)), draw(st.floats(0, height))])
    return [x[0], y[0], x[1], y[1]], [width, height]


@given(boxes_on_images(), st.integers(1, 8))
def test_no_rectangle_of_cells_is_better_than_the_best(given: tuple[list[float], list[int]], k: int) -> None:
    box, size = given
    every = np.array(
        [(a, b, c, d) for a in range(k) for c in range(a, k) for b in range(k) for d in range(b, k)], np.float64
    )
    scores = regions.score_regions(every, [box] * len(every), [size] * len(every), k)
    assert scores.best_iou[0] == pytest.approx(scores.iou_box.max(), abs=1e-9)
    assert (scores.iou_box <= scores.iogt_box + 1e-12).all()
    assert (scores.gold_iou <= scores.best_iou + 1e-12).all()


@given(boxes_on_images())
def test_the_right_tokens_get_all_that_they_can(given: tuple[list[float], list[int]]) -> None:
    box, size = given
    right = tuple(geometry.cells([box], [size], K)[0].tolist())
    said = looks.asked([spoken(right), "an answer"], K)
    scores = regions.score_regions(regions.around([said.cells]), [box], [size], K)
    assert scores.iou_cells == scores.iogt_cells == [1.0]
    assert scores.iou_box == scores.gold_iou
    assert scores.iogt_box == [1.0]


def test_a_row_without_a_region_scores_nothing() -> None:
    scores = regions.score_regions(regions.around([[]]), [[10, 10, 20, 20]], [[100, 100]], K)
    assert [scores.iou_box[0], scores.iogt_box[0], scores.iou_cells[0], scores.iogt_cells[0]] == [0, 0, 0, 0]
    assert scores.gold_iou[0] > 0


def test_several_regions_count_as_the_one_around_them() -> None:
    said = looks.asked([spoken((0, 0, 1, 1), (4, 2, 5, 5))], K)
    assert regions.around([said.cells]).tolist() == [[0, 0, 5, 5]]


def test_sizes_of_boxes_are_in_cells() -> None:
    sizes = [[80, 160]] * 4
    boxes = [[0, 0, 10, 19.9], [0, 0, 10, 20], [0, 0, 20, 40], [0, 0, 80, 160]]
    assert regions.bucket(boxes, sizes, K).tolist() == [0, 1, 1, 2]


START, END = grid.START, grid.END


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{START}<|x_5|><|y_0|><|x_1|><|y_2|>{END}", "region_reversed"),
        (f"{START}<|x_0|><|y_0|><|x_8|><|y_2|>{END}", "region_index_out_of_range"),
        (f"{START}<|x_0|><|x_0|><|x_1|><|x_2|>{END}", "region_missing_axis"),
        (f"{START}<|x_0|><|y_0|><|x_1|>{END}", "region_wrong_count"),
        (f"{START}<|y_0|><|x_0|><|x_1|><|y_2|>{END}", "region_wrong_order"),
        (f"{START}<|x_0|><|y_0|> to <|x_1|><|y_2|>{END}", "region_text_between_tokens"),
        (f"{START}<|x_0|><|y_0|><|x_1|><|y_2|>", "region_no_end"),
        (f"<|x_0|><|y_0|><|x_1|><|y_2|>{END}", "region_no_start"),
        ("<|detection_action_start|><|detection_action_end|>", "action_missing_control"),
        ("<|seg_action_start|><|seg_action|>", "action_missing_end"),
        ("<|seg_action|><|seg_action_end|>", "action_missing_start"),
        ("<|seg_action_start|><|clip_action|><|seg_action_end|>", "action_mixed_encoders"),
    ],
)
def test_a_look_that_cannot_be_used_is_counted_by_cause_and_is_no_box(text: str, cause: str) -> None:
    """The published evaluation makes a box of reversed and of repeated coordinates, and drops rows with one axis."""
    found = looks.asked([text, "red"], K)
    assert (found.cells, found.encoders, dict(found.invalid)) == ((), (), {cause: 1})
    assert found.triggered == "invalid"
    assert np.isnan(regions.around([found.cells])).all()


def test_blanks_between_tokens_do_no_harm() -> None:
    found = looks.asked([spoken((1, 2, 3, 4)).replace("><", "> <")], K)
    assert (found.cells, found.invalid.total(), found.triggered) == (((1, 2, 3, 4),), 0, "region")
    found = looks.asked([action_turn("sam").replace("><", "> <")], K)
    assert (found.encoders, found.invalid.total(), found.triggered) == (("sam",), 0, "reencode")


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        (["red"], "none"),
        ([], "none"),
        ([spoken((0, 0, 1, 1)), "red"], "region"),
        ([spoken((0, 0, 1, 1)), spoken((0, 0, 0, 0)), "red"], "region"),
        ([action_turn("dino"), "red"], "reencode"),
        ([action_turn("dino"), action_turn("dino"), "red"], "reencode"),
        ([action_turn("dino"), action_turn("sam"), "red"], "several"),
        ([action_turn("dino") + spoken((0, 0, 1, 1)), "red"], "several"),
        ([f"{START}{END}", spoken((0, 0, 1, 1))], "region"),
    ],
)
def test_the_kind_that_was_triggered(turns: list[str], kind: str) -> None:
    assert looks.asked(turns, K).triggered == kind


@given(st.lists(st.tuples(st.sampled_from(looks.EXPECTED), st.sampled_from(looks.TRIGGERED))))
def test_the_matrix_counts_every_row_once(pairs: list[tuple[str, str]]) -> None:
    found = looks.confusion([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert found.sum() == len(pairs)
    for row, expected in enumerate(looks.EXPECTED):
        assert found[row].sum() == sum(pair[0] == expected for pair in pairs)


def test_every_evaluation_take_of_every_recipe_has_a_metric() -> None:
    recipes = [recipe.load(name, ['encoder="dino"']) for name in recipe.names()]  # alignment has none by itself
    takes = {name for each in recipes for name, take in each.take.items() if take.expected}
    takes |= set(msgspec.toml.decode(RECIPES["plates_eval"])["take"])
    assert takes == set(BENCHMARKS)
    assert {metric_of(take).name for take in takes} <= set(METRICS)


def test_the_page_lists_every_metric_and_every_take() -> None:
    page = DOCS / "evaluation.md"
    assert [names(row[:1])[0] for row in tables(page, "Metrics")] == list(METRICS)
    rows = tables(page, "Which take is scored by which metric")
    shown = {take: (names(row[1:2])[0], row[2]) for row in rows for take in names(row[:1])}
    whose = {None: "ours", "pope_owners": "ours; the owners' is `pope_owners`"}
    assert shown == {take: (one.metric, whose.get(one.owners, "the owners'")) for take, one in BENCHMARKS.items()}


def test_metrics_can_be_chosen() -> None:
    assert metric_of("mine", {"mine": "anls"}).name == "anls"
    assert metric_of("POPE_action_test", {"POPE_action_test": "pope_owners"}).name == "pope_owners"
    with pytest.raises(
        UsageError, match=r"^Take 'mine' has no metric; choose one with --metric mine=NAME, out of vqa, "
    ):
        metric_of("mine")
    with pytest.raises(UsageError, match=r"^Unknown metric 'anl'; did you mean anls"):
        metric_of("mine", {"mine": "anl"})


def test_evaluation_needs_no_torch() -> None:
    code = (
        "import pkgutil, sys, importlib, trainer.evaluate, trainer.evaluation as room;"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(room.__path__, 'trainer.evaluation.')];"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
