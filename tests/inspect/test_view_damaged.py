"""Rows that `check` objects to are shown all the same: people look at a page to see what is wrong."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from helpers import small_corpora
from helpers.command import run
from test_check_rows import BREAKS

from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect import picture
from vpt_data.inspect.view import terminal
from vpt_data.inspect.view.browse import Browser, Query
from vpt_data.inspect.view.choose import Choice
from vpt_data.inspect.view.document import Shown, document, one
from vpt_data.inspect.view.page import render

Row = dict[str, Any]
#: Boxes and sizes that no build writes.
ODD: list[Row] = [
    {"regions": [{"image": 9, "box": [0.0, 0.0, 1.0, 1.0], "label": "no such image"}]},
    {"regions": [{"image": 0, "box": [math.nan, 0.0, math.inf, 1.0], "label": None}]},
    {"regions": [{"image": 0, "box": None, "label": None}]},
    {"regions": [{"image": 0, "box": [9.0, 9.0, 1.0, 1.0], "label": None}]},
    {"regions": None, "answers": None, "looks": None, "question": None},
    {"views": None},
    {"messages": None, "views": None},
    {"images": None, "image_info": None, "views": None},
    {"k": 0},
    {"k": None, "crop_margin_cells": -1},
]


def edited(corpus: Path, number: int) -> None:
    """Damage one row."""

    def change(row: Row) -> bool:
        nonlocal done
        where = BREAKS[number][1] if number < len(BREAKS) else {"take": "gqa"}
        if done or any(row[key] != value for key, value in where.items()):
            return False
        done = True
        if number < len(BREAKS):
            BREAKS[number][2](row)
        else:
            row.update(ODD[number - len(BREAKS)])
        return True

    done = False
    assert small_corpora.change_rows(corpus, change) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    small_corpora.build(folder)
    return small_corpora.files_of(folder)


@pytest.mark.parametrize("number", range(len(BREAKS) + len(ODD)))
def test_a_damaged_row_is_shown(whole: dict[str, bytes], number: int, tmp_path: Path) -> None:
    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    edited(tmp_path / "corpus", number)
    shown = Shown(open_corpus(tmp_path / "corpus"), tmp_path / "raw")
    made = document(shown, Choice(500))
    rows = small_corpora.rows_of(tmp_path / "corpus")
    assert [item.id for item in made.items] == [row["id"] for row in rows]
    assert render(made)
    browser = Browser(shown)
    assert [item.id for item in browser.rows(Query(), 0, 500).items] == [row["id"] for row in rows]
    assert browser.rows(Query(text="thing", sort="iou"), 0, 500).total
    for row, crop, which in itertools.product(range(6), (False, True), range(3)):
        browser.picture(0, row, crop, which, 64)


def test_damaged_rows_are_printed(whole: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for number in range(len(BREAKS), len(BREAKS) + len(ODD)):
        edited(tmp_path / "corpus", number)
        wanted = next(row["id"] for row in small_corpora.rows_of(tmp_path / "corpus") if row["take"] == "gqa")
        found = run("show", wanted, "--corpus", tmp_path / "corpus", "--raw", tmp_path / "raw")
        assert found.exit_code == 0 and found.stdout.startswith(f"{wanted}  "), found.output


NAMES = [entry[0] for entry in BREAKS]


@pytest.mark.parametrize(
    "number", [NAMES.index("no path"), NAMES.index("no image_info"), len(BREAKS) + 8, len(BREAKS) + 9]
)
def test_a_damaged_row_is_drawn(whole: dict[str, bytes], number: int, tmp_path: Path) -> None:
    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    before = [repr(row) for row in small_corpora.rows_of(tmp_path / "corpus")]
    edited(tmp_path / "corpus", number)
    shown = Shown(open_corpus(tmp_path / "corpus"), tmp_path / "raw")
    [odd] = [row for row in small_corpora.rows_of(tmp_path / "corpus") if repr(row) not in before]
    full, _ = one(shown, odd["id"])
    assert picture.draw(full, shown.raw).width == picture.WIDTH
    assert terminal.sketch(full, shown.raw).width <= 640
