"""Points by the published rule, and markers as they were drawn on the published pictures."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vpt_data.depth.points import Point, choose, marked

SHARED = Path(__file__).parents[3] / "shared/data/aurora"


def floor(number: int) -> np.ndarray:
    """A map like that of a room: closer towards the lower border, with an object in front."""
    chance = np.random.default_rng(number)
    depth = np.tile(np.linspace(0, 200, 336)[:, None], (1, 336))
    x, y = chance.integers(0, 240, 2)
    depth[y : y + 90, x : x + 90] = chance.integers(30, 255)
    return depth.astype(np.uint8)


@pytest.fixture(scope="module")
def chosen() -> list[list[Point]]:
    return [choose(floor(number), 0, f"{number}.jpg") for number in range(500)]


def statistics(chosen: list[list[Point]]) -> tuple[Counter[int], float, int, range, range]:
    """Images by number of points, least distance and gap of two points, and the reach of coordinates and depths."""
    pairs = [pair for points in chosen for pair in combinations(points, 2)]
    apart = min(((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5 for a, b in pairs)
    places = [side for points in chosen for point in points for side in (point.x, point.y)]
    depths = [point.depth for points in chosen for point in points]
    reach, deep = range(min(places), max(places) + 1), range(min(depths), max(depths) + 1)
    return Counter(map(len, chosen)), apart, min(abs(a.depth - b.depth) for a, b in pairs), reach, deep


def check_statistics(chosen: list[list[Point]]) -> None:
    counts, apart, gap, reach, deep = statistics(chosen)
    assert sorted(counts) == [2, 3, 4, 5]
    # Three standard deviations of a quarter of 500 are 29.
    assert all(abs(count - 125) <= 29 for count in counts.values())
    assert apart >= 20 and gap >= 20 and min(deep) >= 1
    assert min(reach) <= 3 and 297 <= max(reach) <= 300


def test_points_keep_the_published_rule(chosen: list[list[Point]]) -> None:
    check_statistics(chosen)
    for points in chosen:
        assert [point.depth for point in points] == sorted(point.depth for point in points)
        assert sorted(point.label for point in points) == list("ABCDE"[: len(points)])
    nearest = Counter(points[-1].label for points in chosen if len(points) == 5)
    assert len(nearest) == 5


@pytest.mark.skipif(not SHARED.exists(), reason="the published selection is not here (../shared/data/aurora)")
def test_the_published_selection_keeps_it_as_well() -> None:
    given = json.loads((SHARED / "train_selection/point_label_mappings.json").read_text())
    published = [
        [Point(label, *point["coordinate"], int(point["depth"])) for label, point in points.items()]
        for points in given.values()
    ]
    assert len(published) == 500
    check_statistics(published)


def test_other_images_change_nothing_and_another_seed_does() -> None:
    assert choose(floor(1), 0, "a") == choose(floor(1), 0, "a")
    assert len({tuple(choose(floor(1), seed, name)) for seed in (0, 1) for name in ("a", "b")}) == 4


def test_a_map_without_relief_has_no_points() -> None:
    assert choose(np.full((336, 336), 9, np.uint8), 0, "a") == []
    assert choose(np.zeros((336, 336), np.uint8), 0, "a") == []


def test_a_marker() -> None:
    found = np.asarray(marked(Image.new("RGB", (500, 375), "green"), [Point("A", 100, 200, 9)]))
    assert found.shape == (336, 336, 3)
    assert found[200, 100].tolist() == [0, 128, 0] and found[196, 100].tolist() == [255, 0, 0]
    assert found[174, 99].tolist() == [0, 0, 0] and found[188, 107].tolist() == [0, 0, 0]
    assert found[189, 99].tolist() == found[173, 99].tolist() == [0, 128, 0]


def rings(pixels: np.ndarray) -> list[tuple[int, int]]:
    """The middles of all red rings of a picture, found by their shape."""
    ring = Image.new("L", (9, 9))
    ImageDraw.Draw(ring).ellipse([0, 0, 8, 8], outline=255, width=2)
    wanted, red = np.asarray(ring) > 0, (pixels == [255, 0, 0]).all(-1)
    windows = np.lib.stride_tricks.sliding_window_view(red, (9, 9))
    hits = (windows & wanted).sum((2, 3)) == wanted.sum()
    return [(int(x) + 4, int(y) + 4) for y, x in np.argwhere(hits)]


@pytest.mark.skipif(not SHARED.exists(), reason="the published pictures are not here (../shared/data/aurora)")
@pytest.mark.parametrize("number", [1, 2])
def test_markers_drawn_again_are_the_published_pixels(number: int) -> None:
    """Drawing our marker over a published one changes no pixel, with exactly one letter."""
    published = Image.open(SHARED / f"hardblink_images/blink3pointscenter_{number}.png")
    pixels = np.asarray(published)
    places = rings(pixels)
    assert len(places) == 3
    letters = [
        [letter for letter in "ABCDE" if (np.asarray(marked(published, [Point(letter, x, y, 0)])) == pixels).all()]
        for x, y in places
    ]
    assert sorted(letters) == [["A"], ["B"], ["C"]]
