"""A row can hold what neighbours need: one small hand-made example each, through Parquet and back in every reader."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vpt_data.corpus import fingerprint, shards
from vpt_data.corpus.reader import Shard
from vpt_data.dialogue.tokens.grid import encode
from vpt_data.dialogue.tokens.reencode import action_turn
from vpt_data.inspect import row_rules
from vpt_data.schema import SAMPLE

SIDE = 80  # so that a cell of the 8 x 8 grid is 10 px wide


def picture(color: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), color).save(out, "PNG")
    return out.getvalue()


PAGE, PHOTO = picture("white"), picture("green")


def say(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn, after a system turn if there is one."""
    led = [{"role": "system", "content": system}] if system else []
    return led + [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]


def view(turn: int, image: int = 0, encoder: str = "vlm", **where: Any) -> dict[str, Any]:
    return {"turn": turn, "image": image, "encoder": encoder, "box": None, "cells": None} | where


def region(cells: list[int]) -> str:
    text: str = encode([cells], 8)[0].as_py()
    return text


def crop(turn: int, cells: list[int], image: int = 0) -> dict[str, Any]:
    """What the cells show: both ends are in."""
    x0, y0, x1, y1 = cells
    return view(turn, image, box=[10 * x0, 10 * y0, 10 * x1 + 10, 10 * y1 + 10], cells=cells)


def row(name: str, messages: list[dict[str, str]], views: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    images = values.pop("images", [PAGE] if views else [])
    info = {"width": SIDE, "height": SIDE, "license": "CC0-1.0", "attribution": None}
    return {
        "id": f"hand/{name}", "take": "hand", "source": "table", "dataset": "hand", "source_id": None, "split": "train",
        "task": "general", "template": "region", "looks": [], "expected": None, "messages": messages, "views": views,
        "images": [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)],
        "image_info": [info | {"sha256": hashlib.sha256(data).hexdigest()} for data in images],
        "question": None, "answers": [], "regions": [], "region_status": "unknown", "meta": None, "prompted": False,
        "k": 8, "crop_margin_cells": 0, "license": "CC0-1.0", "language": "en", "weight": 1.0,
    } | values  # fmt: skip


LEFT, RIGHT = [0, 2, 3, 5], [4, 2, 7, 5]
TOOL = {"name": "zoom_in", "arguments": {"bbox_2d": [12, 8, 33, 41], "label": "price"}}
EXAMPLES = [
    row(
        "text_between_several_looks",
        say(
            "<image>\nWhich word is longer?",
            f"Two words. The left one: {region(LEFT)}",
            "<image>",
            f"It says CAT. Now the right one: {region(RIGHT)}",
            "<image>",
            f"It says HORSE. Once more, as a whole: {action_turn('dino')}",
            "<detection_image>",
            "HORSE",
        ),
        [view(0), crop(2, LEFT), crop(4, RIGHT), view(6, encoder="dino")],
        looks=["region", "region", "dino"],
        answers=["HORSE"],
    ),
    row(
        "several_looks_in_one_turn",
        say(
            "<image>\nWhat is the sum?",
            region(LEFT) + region(RIGHT),
            "Region 0: <image>Region 1: <image>",
            "12",
        ),
        [view(0), crop(2, LEFT), crop(2, RIGHT)],
        looks=["region", "region"],
        answers=["12"],
        regions=[
            {"image": 0, "box": [1.5, 20.0, 39.9, 59.0], "label": "first"},
            {"image": 0, "box": [41.0, 20.25, 79.0, 59.0], "label": None},
        ],
        region_status="given",
    ),
    row(
        "zoom_in_tool_call_with_a_label",
        say(
            "<image>\nWhat does it cost?",
            f"<tool_call>{json.dumps(TOOL)}</tool_call>",
            "<tool_response><image></tool_response>",
            "3.50",
        ),
        [view(0), view(2, box=[12, 8, 33, 41])],
        looks=["region"],
        regions=[{"image": 0, "box": [12.0, 8.0, 33.0, 41.0], "label": "price"}],
        region_status="given",
        meta=json.dumps({"tool": TOOL}),
    ),
    row(
        "two_images",
        say("<image>\n<image>\nWhat changed?", region(RIGHT), "<image>", "The sky."),
        [view(0, 0), view(0, 1), crop(2, RIGHT, image=1)],
        looks=["region"],
        images=[PAGE, PHOTO],
    ),
    row(
        "text_only_with_a_system_turn",
        say("What is a grid?", "Rows and columns.", "And a cell?", "One of its parts.", system="Be brief."),
        [],
        template="plain",
        task="instruction",
    ),
    row(
        "evaluation_with_choices",
        say("<image>\nWhich one? (A) a cat (B) a dog", "B"),
        [view(0)],
        template="plain",
        expected="region",
        split="validation",
        question="Which one?",
        answers=["B", "a dog"],
        meta=json.dumps({"choices": ["a cat", "a dog"]}),
    ),
    row("no_look_needed", say("<image>\nIs it day?", "Yes."), [view(0)], region_status="none_needed", template="plain"),
    row(
        "another_language",
        say("<image>\nWas steht da? 那里写着什么？", region(LEFT), "<image>", "Öffnungszeiten 🕗"),
        [view(0), crop(2, LEFT)],
        looks=["region"],
        question="Was steht da? 那里写着什么？",
        answers=["Öffnungszeiten 🕗"],
        language="de",
        weight=0.5,
        source_id="Zeile 7",
    ),
]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hand") / "train-00000-of-00001.parquet"
    options = shards.writer_options() | {"store_schema": True}
    pq.write_table(pa.Table.from_pylist(EXAMPLES, schema=SAMPLE), path, **options)
    return path


def test_parquet_gives_the_rows_back(shard: Path) -> None:
    found = pq.read_table(shard)
    assert found.schema.equals(SAMPLE, check_metadata=False)
    assert found.schema.metadata[b"huggingface"] == SAMPLE.metadata[b"huggingface"]
    assert found.to_pylist() == EXAMPLES


def test_the_shard_reader_gives_the_rows_back(shard: Path) -> None:
    tables = Shard(shard, "train", embed=True).tables(images=True)
    assert [row for table in tables for row in table.to_pylist()] == EXAMPLES


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_gives_the_rows_back(shard: Path, tmp_path: Path, streaming: bool) -> None:
    found = datasets.load_dataset(
        "parquet", data_files=str(shard), split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    for expected, row in zip(EXAMPLES, found, strict=True):
        assert {**row, "images": None} == {**expected, "images": None}
        assert [image.size for image in row["images"]] == [(SIDE, SIDE)] * len(expected["images"])


def test_duckdb_gives_the_rows_back(shard: Path) -> None:
    with duckdb.connect() as db:
        found = db.execute("select * from read_parquet(?)", [str(shard)]).fetchall()
    rows = [dict(zip(SAMPLE.names, values, strict=True)) for values in found]
    # A list of four numbers comes as a tuple, and as JSON it is the same.
    for row, expected in zip(rows, EXAMPLES, strict=True):
        one, other = (json.dumps(each, default=bytes.hex, sort_keys=True) for each in (row, expected))
        assert one == other


def test_equal_rows_have_equal_hashes_and_no_others(shard: Path) -> None:
    hashes = fingerprint.sample_hashes(pq.read_table(shard)).to_pylist()
    assert hashes == fingerprint.sample_hashes(pa.Table.from_pylist(EXAMPLES, schema=SAMPLE)).to_pylist()
    assert len(set(hashes)) == len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["id"]))
def test_the_rules_for_rows_hold(example: dict[str, Any]) -> None:
    assert list(row_rules.broken(pa.Table.from_pylist([example], schema=SAMPLE), frozenset(), embed=True)) == []


def test_the_rules_see_what_is_wrong() -> None:
    """The same examples with the crop of a look somewhere else: the rules do read them."""
    example = {**EXAMPLES[0], "views": [*EXAMPLES[0]["views"][:2], crop(4, LEFT), EXAMPLES[0]["views"][3]]}
    found = list(row_rules.broken(pa.Table.from_pylist([example], schema=SAMPLE), frozenset(), embed=True))
    assert [broken.rule for broken in found] == ["region_cells"]
