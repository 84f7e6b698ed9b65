"""The world of plates: nothing but a look at the right plate answers."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import end_to_end
from PIL import Image

from trainer.model.tiny import small_vision
from vpt_data.api import open_corpus
from vpt_data.synthetic.plates import COLOURS, PATTERNS, SITE, Plate, drawn, plates, write_plates

VISION = small_vision()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates") / "raw"
    write_plates(root, {"train": 60, "test": 20})
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


def test_the_world_becomes_a_corpus_with_its_own_held_out_pictures(world: Path, tmp_path: Path) -> None:
    built = open_corpus(str(end_to_end.build(world / "recipe.toml", world, tmp_path / "corpus", mode="embed")))
    assert set(built.manifest.splits) == {"train", "test"}
    pictures = {}
    for split in ("train", "test"):
        lines = (world / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        pictures[split] = {_pixels(world / "images" / record["image"]) for record in records}
        rows = list(built.rows(split))
        assert sorted(row["messages"][-1]["content"] for row in rows) == sorted(r["answer"] for r in records)
        assert all(row["messages"][0]["content"].endswith(" plate?\n<image>") for row in rows)
        cells = sorted(tuple(row["views"][1]["cells"]) for row in rows)
        true = [_place(Plate("", "", tuple(record["box"]))) for record in records]
        assert cells == sorted((2 * x, 2 * y, 2 * x + 1, 2 * y + 1) for x, y in true)
    assert not pictures["train"] & pictures["test"]


def _pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_equal_numbers_give_equal_files(world: Path, tmp_path: Path) -> None:
    write_plates(tmp_path / "raw", {"train": 60, "test": 20})
    found = {path.relative_to(world): path.read_bytes() for path in world.rglob("*") if path.is_file()}
    again = {p.relative_to(tmp_path / "raw"): p.read_bytes() for p in (tmp_path / "raw").rglob("*") if p.is_file()}
    assert found == again
