"""The world of plates: nothing but a look at the right plate answers."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import end_to_end
from PIL import Image

from trainer.model.tiny import small_vision
from vpt_data.api import open_corpus
from vpt_data.synthetic.plates import COLOURS, PATTERNS, SITE, Plate, drawn, plates, write_plates
from vpt_data.synthetic.scenes import Box

VISION = small_vision()
FEW = {"train": 60, "validation": 10, "unseen": 20}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates") / "raw"
    write_plates(root, FEW)
    return root


def seen(pattern: str, crop: bool) -> np.ndarray:
    """What a model of 28 pixels sees of a picture with this pattern on its first plate, or of a crop of that plate."""
    found = plates(random.Random(7), 2)
    found[0] = found[0]._replace(pattern=pattern)
    image = drawn(found, random.Random(7))
    x, y = (side // SITE * SITE for side in found[0].box[:2])
    shown = image.crop((x, y, x + SITE, y + SITE)) if crop else image
    return VISION.picture("vlm", shown).numpy().astype(float)


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern != "plain"])
def test_a_pattern_is_there_in_a_crop_and_gone_in_the_picture(pattern: str) -> None:
    assert np.abs(seen(pattern, crop=False) - seen("plain", crop=False)).max() < 16
    assert np.abs(seen(pattern, crop=True) - seen("plain", crop=True)).max() > 30


def test_plates_differ_in_colour_and_each_is_in_one_place() -> None:
    for seed in range(50):
        found = plates(random.Random(seed), 2)
        assert len({plate.colour for plate in found}) == 2 == len({_place(plate) for plate in found})
        assert all((plate.box[0] // SITE, plate.box[1] // SITE) == _place(plate) for plate in found)


def _place(plate: Plate) -> tuple[int, int]:
    return (plate.box[2] - 1) // SITE, (plate.box[3] - 1) // SITE


def test_the_answer_does_not_follow_from_the_question() -> None:
    """The most frequent pattern of each colour is right as often as chance."""
    pairs = [(plate.colour, plate.pattern) for seed in range(2000) for plate in plates(random.Random(seed), 2)]
    usual = {colour: Counter(p for c, p in pairs if c == colour).most_common(1)[0][1] for colour in COLOURS}
    assert sum(usual[colour] == pattern for colour, pattern in pairs) / len(pairs) < 1.25 / len(PATTERNS)


@pytest.fixture(scope="module")
def rows(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Split -> its rows, of both corpora."""
    found = {}
    for name in ("plates", "plates_eval"):
        place = end_to_end.build(world / f"{name}.toml", world, tmp_path_factory.mktemp("built") / name, mode="embed")
        corpus = open_corpus(str(place))
        found |= {split: list(corpus.rows(split)) for split in corpus.manifest.splits}
    return found


def records(world: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_no_picture_is_in_two_splits(world: Path) -> None:
    pictures = {split: {_pixels(path) for path in (world / "images").glob(f"{split}-*.png")} for split in FEW}
    assert {split: len(found) for split, found in pictures.items()} == FEW
    assert len(set.union(*pictures.values())) == sum(FEW.values())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_trained_rows_look_at_the_plate_that_they_ask_for(
    split: str, world: Path, rows: dict[str, list[dict[str, Any]]]
) -> None:
    found = Counter((_cells(row), row["messages"][-1]["content"]) for row in rows[split])
    assert found == Counter((_place_cells(record["box"]), record["answer"]) for record in records(world, split))
    assert all(row["messages"][0]["content"].endswith(" plate?\n<image>") for row in rows[split])


def test_evaluation_rows_have_question_answer_box_and_the_look_that_is_expected(
    world: Path, rows: dict[str, list[dict[str, Any]]]
) -> None:
    asked = rows["plates_region_test"]
    found = sorted((row["question"], row["answers"], row["regions"][0]["box"]) for row in asked)
    assert found == sorted((one["question"], [one["answer"]], one["box"]) for one in records(world, "unseen"))
    assert {(row["expected"], len(row["views"])) for row in asked} == {("region", 1)}


def _cells(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row["views"][1]["cells"])


def _place_cells(box: Box) -> tuple[int, ...]:
    x, y = _place(Plate("", "", box))
    return 2 * x, 2 * y, 2 * x + 1, 2 * y + 1


def _pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_equal_numbers_give_equal_files(world: Path, tmp_path: Path) -> None:
    write_plates(tmp_path / "raw", FEW)
    found = {path.relative_to(world): path.read_bytes() for path in world.rglob("*") if path.is_file()}
    again = {p.relative_to(tmp_path / "raw"): p.read_bytes() for p in (tmp_path / "raw").rglob("*") if p.is_file()}
    assert found == again
