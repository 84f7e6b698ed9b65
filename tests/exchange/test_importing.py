"""Corpora of published files: what is kept, repaired and refused, and that all commands read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command import error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_published import ALIGNMENT, CALL, GOOD, PLAIN, TRIGGER, TWO, action, region, row, span, write

from vpt_data import geometry
from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.errors import RawError
from vpt_data.exchange.published import importing
from vpt_data.exchange.published.grid_repair import Look, on_grid, repaired
from vpt_data.exchange.published.importing import import_file
from vpt_data.exchange.published.paths import canonical
from vpt_data.inspect.check import check

#: As users quote it: a box that ends on the right border, with its crop beyond the image (500 x 375).
GQA = row(
    f"<image>\nWhat's the dog on? \n{TRIGGER}",
    span(0, 0, 8, 6),
    "<image>",
    "pillow",
    images=["/data/GQA/images/2408356.jpg", "/data/GQA/images/2408356.jpg_0,0,562,328"],
)


def imported(folder: Path, rows: list[Any], repair: bool = False, raw: Path | None = None) -> Corpus:
    import_file(write(folder / "vpt.json", rows), folder / "corpus", repair, raw or folder)
    corpus = open_corpus(folder / "corpus")
    assert check(folder / "corpus").findings == []
    return corpus


def the_row(corpus: Corpus) -> dict[str, Any]:
    [found] = corpus.rows()
    return found


def test_a_quoted_row_is_kept_as_it_is_or_repaired(tmp_path: Path) -> None:
    for repair, cells, box, edge in (
        (False, [0, 0, 8, 6], [0, 0, 562, 328], "legacy"),
        (True, [0, 0, 7, 6], [0, 0, 500, 328], "floor"),
    ):
        folder = tmp_path / edge
        folder.mkdir()
        corpus = imported(folder, [GQA], repair)
        made = the_row(corpus)
        assert [turn["content"] for turn in made["messages"]] == [
            GQA["messages"][0]["content"], span(*cells), "<image>", "pillow",
        ]  # fmt: skip
        assert made["views"][1] == {"turn": 2, "image": 0, "encoder": "vlm", "box": box, "cells": cells}
        assert (made["question"], made["answers"], made["looks"]) == ("What's the dog on?", ["pillow"], ["region"])
        assert (made["prompted"], made["template"], made["dataset"]) == (True, "region", "gqa")
        assert [image["path"] for image in made["images"]] == ["gqa/images/2408356.jpg"]
        assert json.loads(made["meta"]) == {"paths": ["/data/GQA/images/2408356.jpg"]}
        assert made["image_info"][0]["license"] == "LicenseRef-VisualGenome-Flickr"
        [component] = corpus.manifest.components
        assert component.repaired == ({"off_grid": 1} if repair else {})
        assert corpus.origins()["repaired"].to_pylist() == [["off_grid"] if repair else []]
        assert corpus.manifest.recipe.resolved["take"]["region"]["edge"] == edge


def text_of(row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(row).replace(old, new))
    return changed


def test_looks_of_all_kinds_become_views(tmp_path: Path) -> None:
    rows = list(imported(tmp_path, [action(), TWO, ALIGNMENT, PLAIN]).rows())
    assert [made["take"] for made in rows] == ["dino", "region", "alignment_sam", "plain"], "the order of the file"
    assert [(view["turn"], view["encoder"], view["box"]) for view in rows[0]["views"]] == [
        (0, "vlm", None),
        (2, "dino", None),
    ]
    assert [view["cells"] for view in rows[1]["views"]] == [None, [0, 0, 1, 1], [2, 2, 3, 3]]
    assert rows[1]["looks"] == ["region", "region"] and [image["path"] for image in rows[1]["images"]] == ["a.jpg"]
    assert [view["encoder"] for view in rows[2]["views"]] == ["sam"] and rows[2]["looks"] == []
    assert [made["answers"] for made in rows] == [["A tower."], ["There."], ["a dog"], ["Hi"]]
    assert [made["task"] for made in rows] == ["general", "spatial", "alignment", "instruction"]
    (tmp_path / "bird").mkdir()
    bird = text_of(action(), "a/b.jpg", "CUB/CUB_200_2011/images/001.Auk/1.jpg")
    assert the_row(imported(tmp_path / "bird", [bird]))["task"] == "fine_grained"


def test_every_record_is_kept_or_dropped_with_a_reason(tmp_path: Path) -> None:
    refused = {
        "malformed": [
            7, {"messages": 5}, row("<image>\nWhere?", "There", images=[]), row("hello"),
            region(span(0, 3, 7, 1)), region("Somewhere."), region(crop="a/b.jpg_9,0,500,328"),
            region(span(0, 0, 8, 6), "a/b.jpg_0,0,557,328"), action(CALL[:-1]),
        ],
        "unsafe_path": [region(crop="../b.jpg_0,0,500,328")],
        "duplicate": [GOOD[0]],
    }  # fmt: skip
    corpus = imported(tmp_path, [*GOOD, *(bad for each in refused.values() for bad in each)], repair=True)
    counted = {reason: len(rows) for reason, rows in refused.items()}
    reasons = corpus.dropped()["reason"].to_pylist()
    assert {reason: reasons.count(reason) for reason in set(reasons)} == counted
    assert sum(part.read for part in corpus.manifest.components) == len(GOOD) + sum(counted.values())
    details = " ".join(corpus.dropped()["detail"].to_pylist())
    for said in ("record 7: ", "images has 0 paths, the messages have 1 <image>", "no image explains", "crop_cells: "):
        assert said in details


def test_images_of_a_raw_root_give_sizes_and_refuse_crops_of_others(tmp_path: Path) -> None:
    for name, size in (("right", (500, 375)), ("wrong", (400, 375))):
        (tmp_path / name / "gqa/images").mkdir(parents=True)
        Image.new("RGB", size).save(tmp_path / name / "gqa/images/2408356.jpg")
    made = the_row(imported(tmp_path / "right", [GQA], repair=True))
    assert (made["image_info"][0]["width"], made["image_info"][0]["height"]) == (500, 375)
    corpus = imported(tmp_path / "wrong", [GQA, PLAIN])
    assert corpus.dropped()["reason"].to_pylist() == ["size_mismatch"]
    assert corpus.manifest.images.missing == 1


def test_what_a_sample_has_no_column_for_is_in_meta(tmp_path: Path) -> None:
    assert json.loads(the_row(imported(tmp_path, [PLAIN | {"index": 5}]))["meta"]) == {"other_keys": {"index": 5}}


def test_shards_are_filled_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "shards_for", lambda rows: 4)
    rows = [row("<image>\nHello?", f"{number}", images=["a.jpg"]) for number in range(10)]
    corpus = imported(tmp_path, [rows[0], *[{"messages": 5}] * 6, *rows[1:]])
    assert [shard.rows for shard in corpus.manifest.splits["train"].shards] == [1, 1, 4, 4]
    assert [made["answers"] for made in corpus.rows(columns=["answers"])] == [[str(number)] for number in range(10)]
    assert corpus.origins()["row"].to_pylist() == [0, *range(7, 16)]


def test_commands_read_an_imported_corpus(tmp_path: Path) -> None:
    file, corpus = write(tmp_path / "vpt.json", [*GOOD, GQA, 7]), tmp_path / "corpus"
    result = run("import", file, "--out", corpus, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["splits"]["train"]["rows"] == 7
    assert "--repair corrects them" in result.stderr
    assert "vpt-data import vpt.json --out OUT" in (corpus / "README.md").read_text(encoding="utf-8")
    for command in (
        ["check", corpus],
        ["stats", corpus],
        ["drops", corpus],
        ["view", corpus, "--out", tmp_path / "page.html"],
    ):
        assert run(*command).exit_code == 0, command
    assert run("render", corpus, "--encoder", "clip", "--out", tmp_path / "clip").exit_code == 0
    clip = list(open_corpus(tmp_path / "clip").rows())
    assert [made["looks"] for made in clip if made["take"] == "dino"] == [["clip"]]
    assert "their prompts stay" in error("render", corpus, "--encoder", "clip", "--prompted", "--out", tmp_path / "no")
    assert "import the file again" in error("check", corpus, "--rebuild", "1", "--raw", tmp_path)


def test_faults_of_files_are_one_sentence(tmp_path: Path) -> None:
    def fails(name: str, content: str, out: str = "corpus") -> str:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return error("import", tmp_path / name, "--out", tmp_path / out)

    whole = json.dumps(GOOD)
    assert "truncated" in fails("cut.json", whole[:-40]) and "fetch the file again" in fails("cut.json", whole[:-40])
    assert (
        fails("empty.json", "[]")
        == "empty.json: it has no records; run `vpt-data check` on the file, and import another."
    )
    assert "the file is empty" in fails("nothing.json", "")
    assert "starts with b'5'" in fails("number.json", "5")
    assert "none of its 2 records can be imported (record 1: Expected `object`, got `int`)" in fails(
        "bad.json", "[1, 2]"
    )
    assert "a file of another kind" in fails("rows.txt", whole)
    assert "no such file" in error("import", tmp_path / "absent.json", "--out", tmp_path / "corpus")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    assert "the folder is not empty" in fails("vpt.json", whole, "mine")


def test_a_run_that_was_stopped_is_started_again_and_a_finished_corpus_stays(tmp_path: Path) -> None:
    with pytest.raises(RawError, match="truncated"):
        import_file(_cut(tmp_path), tmp_path / "corpus", False, tmp_path)
    imported(tmp_path, GOOD)
    before = (tmp_path / "corpus/manifest.json").read_bytes()
    assert "the folder is not empty" in error("import", tmp_path / "vpt.json", "--out", tmp_path / "corpus")
    assert (tmp_path / "corpus/manifest.json").read_bytes() == before


def _cut(folder: Path) -> Path:
    (folder / "vpt.json").write_text(json.dumps(GOOD)[:-40], encoding="utf-8")
    return folder / "vpt.json"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/srv/data/GQA/images/1.jpg", "gqa/images/1.jpg"),
        ("D:\\data\\coco\\train2017\\1.jpg", "coco/train2017/1.jpg"),
        ("./visual_cot/cot/gqa/1.jpg", "gqa/images/1.jpg"),
        ("cub/CUB_200_2011/images/001.Auk/1.jpg", "cub/CUB_200_2011/images/001.Auk/1.jpg"),
        ("/mine/1.jpg", "mine/1.jpg"),
        ("1.jpg", "1.jpg"),
        ("../1.jpg", "../1.jpg"),
    ],
)
def test_paths_are_those_of_a_raw_root(given: str, expected: str) -> None:
    assert canonical(given) == expected == canonical(expected)


@given(st.data())
def test_a_crop_beyond_the_grid_gives_its_image_away(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(8, 5000), st.integers(8, 5000)))
    x0, y0 = data.draw(st.tuples(st.integers(0, 8), st.integers(0, 8)))
    cells = (x0, y0, 8, data.draw(st.integers(y0, 8)))
    box = tuple(geometry.crop([cells], [size], 8)[0].tolist())
    wanted = tuple(min(cell, 7) for cell in cells)
    due = Look(wanted, tuple(geometry.crop([wanted], [size], 8)[0].tolist()))
    assert repaired(Look(cells, box), 8) == due == repaired(Look(cells, box), 8, size)
    other = (size[0] + 1, size[1])
    assert repaired(Look(cells, box), 8, other) is None
    assert on_grid(span(*cells), 8) == span(*wanted)


_JSON = st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2))
_CONTENT = st.lists(
    st.sampled_from(
        ["<image>", "<seg_image>", "<detection_image>", " q", "<|im_start|>", CALL, span(0, 0, 8, 6), span(1, 1, 2, 2)]
    ),
    max_size=3,
).map("".join)
_PATHS = st.lists(
    st.sampled_from(["a.jpg", "a.jpg_0,0,562,328", "a.jpg_5,5,2,2", "a.jpg_0,0,999999999,1", "../a", "", "b/\u00e9"]),
    max_size=3,
)
_MESSAGE = st.fixed_dictionaries({"content": _CONTENT, "role": st.sampled_from(["user", "assistant", "system", "x"])})
_ROW = st.fixed_dictionaries(
    {"messages": st.lists(_MESSAGE, max_size=5) | _JSON, "images": _PATHS | _JSON, "seg_images": _PATHS},
    optional={"detection_images": _PATHS, "clip_images": _JSON, "other": _JSON},
)


@settings(max_examples=12)
@given(rows=st.lists(_ROW | _JSON, max_size=12), repair=st.booleans())
def test_whatever_a_file_holds_what_is_imported_passes_check(
    rows: list[Any], repair: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = imported(tmp_path_factory.mktemp("any"), [GQA, *rows], repair)
    assert sum(part.read for part in corpus.manifest.components) == len(rows) + 1
    assert corpus.dropped().num_rows + corpus.origins().num_rows == len(rows) + 1
