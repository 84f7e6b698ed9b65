"""Plurals of the names of categories, against those that the authors published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpt_data.dialogue.plurals import plural

FILE = Path(__file__).parents[3] / "shared/data/aurora/train_selection/lvis_plurals_1204.json"


@pytest.mark.parametrize(("one", "many"), [
    ("person", "people"), ("fireman", "firemen"), ("ottoman", "ottomans"), ("knife", "knives"), ("cherry", "cherries"),
    ("tray", "trays"), ("bus (vehicle)", "buses (vehicle)"), ("potato", "potatoes"), ("radio", "radios"),
    ("bow (decorative ribbons)", "bows (decorative ribbons)"), ("goldfish", "goldfish"), ("scissors", "scissors"),
    ("jar of honey", "jars of honey"), ("computer mouse", "computer mice"), ("sports ball", "sports balls"),
])  # fmt: skip
def test_a_plural(one: str, many: str) -> None:
    assert plural(one) == many


@pytest.mark.skipif(not FILE.exists(), reason="the published plurals are not here (../shared/data/aurora)")
def test_the_published_plurals() -> None:
    """Ours keep capital letters, and differ in 10 more; 2 of those are mistakes of the published table."""
    published: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    differ = {one for one, many in published.items() if plural(one).lower() != many.lower()}
    assert len(published) == 1204
    assert differ == {
        "applesauce", "chaise longue", "chili (vegetable)", "eclair", "lasagna", "money",
        "monitor (computer equipment) computer monitor", "monitor (computer_equipment) computer_monitor",
        "mouse (computer equipment)", "sherbert", "shower head", "stylus",
    }  # fmt: skip
