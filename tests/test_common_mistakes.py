"""The commonest mistakes with own data: each ends in one sentence that names what to set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import run
from PIL import Image

WIDTH, HEIGHT = 640, 480
#: Boxes of several shapes and places, as two corners in pixels.
BOXES = [(10, 20, 330, 240), (300, 40, 620, 470), (200, 200, 280, 460), (400, 10, 630, 120), (50, 300, 600, 470)] * 3
RECIPE = """
[take.mine]
source = "table"
template = "region"
task = "general"
license = "CC0-1.0"
files = ["own/rows.jsonl"]
images = "own/images"
columns.box = "box"
"""


def corners(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y1]


def build(
    tmp_path: Path,
    convert: Callable[[float, float, float, float], list[float]] = corners,
    more: str = "",
    raw: str = "raw",
    recipe: str = RECIPE,
) -> str:
    """Build fifteen rows with boxes written by `convert`; what the command printed as its error."""
    folder = tmp_path / "raw/own"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, box in enumerate(BOXES):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"images/{number}.jpg")
        rows.append({"image": f"{number}.jpg", "question": f"q {number}", "answer": "a", "box": convert(*box)})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.toml").write_text(recipe + more)
    place = ["--recipe", tmp_path / "mine.toml", "--raw", tmp_path / raw, "--out", tmp_path / "corpus"]
    result = run("build", *place, "--workers", "1")
    assert result.exit_code in {1, 2}, result.output
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert not (tmp_path / "corpus/manifest.json").exists()
    return sentence


def test_the_right_way_builds(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="15 rows in 1 shard"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("convert", "key"),
    [
        (lambda x0, y0, x1, y1: [x0, y0, x1 - x0, y1 - y0], 'box_format = "xywh"'),
        (lambda x0, y0, x1, y1: [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 'box_format = "cxcywh"'),
        (lambda x0, y0, x1, y1: [y0, x0, y1, x1], 'box_format = "yxyx"'),
        (lambda x0, y0, x1, y1: [1000 * x0 / 640, 1000 * y0 / 480, 1000 * x1 / 640, 1000 * y1 / 480], "permille"),
        (lambda x0, y0, x1, y1: [x0 / 640, y0 / 480, x1 / 640, y1 / 480], 'box_units = "fraction"'),
    ],
)
def test_boxes_in_another_convention(
    tmp_path: Path, convert: Callable[[float, float, float, float], list[float]], key: str
) -> None:
    sentence = build(tmp_path, convert)
    assert key in sentence
    assert "set box_" in sentence


@pytest.mark.parametrize(
    ("more", "key"), [('box_format = "xywh"', 'box_format = "xyxy"'), ('box_units = "fraction"', 'box_units = "pixel"')]
)
def test_a_take_that_says_another_convention_than_the_boxes(tmp_path: Path, more: str, key: str) -> None:
    assert f"set {key} in the take" in build(tmp_path, more=more)


def test_the_wrong_folder(tmp_path: Path) -> None:
    assert build(tmp_path, raw="raw/own").endswith(
        "own: none of the files of recipe mine are there, for instance own/rows.jsonl; check --raw, and see "
        "`vpt-data sources` for where each upstream belongs."
    )


def test_the_wrong_column(tmp_path: Path) -> None:
    assert build(tmp_path, more='columns.question = "q"').endswith("set columns.question in the recipe.")


def test_no_images(tmp_path: Path) -> None:
    assert build(tmp_path, recipe=RECIPE.replace("own/images", "own/pictures")).endswith(
        "the corpus has no rows; none of the images is under the raw root; correct --raw, or `images` of the take for "
        "own data."
    )


@pytest.mark.parametrize(
    ("k", "end"),
    [("0", "k is 0; expected 1 to 1000."), ('"8"', 'k is "8"; expected a whole number, for instance k = 16.')],
)
def test_the_wrong_k(tmp_path: Path, k: str, end: str) -> None:
    assert build(tmp_path, more=f"k = {k}").endswith(end)
