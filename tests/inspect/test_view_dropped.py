"""Records that are in no shard, as a page shows them: some of each reason, read again from the raw root."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from helpers import end_to_end

from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.view import dropped
from vpt_data.inspect.view.choose import Choice
from vpt_data.inspect.view.document import Shown, document
from vpt_data.inspect.view.item import Document, DropItem
from vpt_data.schema import DROP


@pytest.fixture(scope="module")
def page(reference_corpus: Path, sample_root: Path) -> Document:
    return document(Shown(open_corpus(reference_corpus), sample_root), Choice(1), drops=10_000)


def test_every_drop_is_there_and_counted(page: Document, reference_corpus: Path) -> None:
    stored = end_to_end.drops(reference_corpus)
    assert [(drop.take, drop.reason, drop.file, drop.line) for drop in page.dropped] == [
        (drop["take"], drop["reason"], drop["file"], drop["line"]) for drop in stored
    ]
    assert sum(sum(counts.values()) for counts in page.dropped_counts.values()) == len(stored)


def test_a_record_is_read_again_unless_it_cannot_be_read(page: Document) -> None:
    assert {drop.reason for drop in page.dropped if drop.item is None} == {"malformed"}
    assert {drop.reason for drop in page.dropped if drop.item} >= {
        "eval_image",
        "claimed",
        "not_selected",
        "empty_answer",
    }


def test_it_is_the_record_of_that_line(page: Document, sample_root: Path) -> None:
    checked = 0
    for drop in page.dropped:
        if drop.item is None or not str(drop.file).startswith("visual_cot/") or not str(drop.file).endswith(".jsonl"):
            continue
        lines = (sample_root / str(drop.file)).read_text(encoding="utf-8").splitlines()
        record = json.loads(lines[int(drop.line or 0) - 1])
        assert (drop.item.question, drop.item.answers) == (record["question"], [record["answer"]])
        # DocVQA repeats a box for each possible answer; the reader does not.
        assert {box.box for box in drop.item.images[0].boxes} == set(map(tuple, record["bboxs"]))
        assert drop.item.images[0].src in page.pictures
        checked += 1
    assert checked > 3


def test_a_record_of_one_long_line_is_found_by_its_key(page: Document, sample_root: Path) -> None:
    records = json.loads((sample_root / "llava/llava_v1_5_mix665k.json").read_text(encoding="utf-8"))
    talks = {"".join(turn["value"] for turn in record["conversations"]) for record in records}
    found = [drop.item for drop in page.dropped if drop.source == "llava" and drop.item]
    assert len(found) > 10
    for item in found:
        assert "".join(part.text for turn in item.turns for part in turn.parts) in talks


def test_own_boxes_are_in_pixels(tmp_path: Path) -> None:
    rows = [{**row, "box": [0.25, 0.5, 0.75, 1.0]} for row in end_to_end.own_rows(3)]
    rows[1]["answer"] = ""
    raw = end_to_end.own_root(tmp_path / "raw", rows)
    recipe = end_to_end.recipe_file(tmp_path)
    recipe.write_text(recipe.read_text(encoding="utf-8") + '\nbox_units = "fraction"\n', encoding="utf-8")
    corpus = end_to_end.build(recipe, raw, tmp_path / "corpus")
    made = document(Shown(open_corpus(corpus), raw), Choice(1), drops=5)
    (drop,) = made.dropped
    assert (drop.reason, drop.line) == ("empty_answer", 2)
    assert drop.item is not None and drop.item.question == rows[1]["question"]
    (image,) = drop.item.images
    width, height = rows[1]["w"], rows[1]["h"]
    assert [box.box for box in image.boxes] == [(width / 4, height / 2, 3 * width / 4, height)]


def test_without_a_raw_root_the_table_is_all_there_is(reference_corpus: Path) -> None:
    made = document(Shown(open_corpus(reference_corpus), None), Choice(1), drops=5)
    assert len(made.dropped) == 5 and not any(drop.item for drop in made.dropped)


def test_files_that_are_gone_are_no_error(reference_corpus: Path, tmp_path: Path) -> None:
    made = document(Shown(open_corpus(reference_corpus), tmp_path), Choice(1), drops=20)
    assert len(made.dropped) == 20 and not any(drop.item for drop in made.dropped)


def test_every_reason_has_its_places() -> None:
    drops = [("a", "claimed", n) for n in range(1000)] + [("a", "malformed", 1000), ("b", "claimed", 1001)]
    columns = {field.name: pa.nulls(len(drops), field.type) for field in DROP}
    columns |= {
        "take": pa.array([take for take, _, _ in drops]),
        "reason": pa.array([reason for _, reason, _ in drops]),
        "line": pa.array([line for _, _, line in drops], pa.int64()),
    }
    table = pa.table(columns, schema=DROP)
    chosen = dropped.choose(table, 10)
    assert len(chosen) == 10 and chosen == dropped.choose(table, 10)
    assert [(drop["take"], drop["reason"]) for drop in chosen][-2:] == [("a", "malformed"), ("b", "claimed")]
    assert all(DropItem(**drop).item is None for drop in chosen)
