"""What holds for every exporter, and for each by itself: new ones are tested by being in EXPORTERS."""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import end_to_end
from helpers.command import error, run
from PIL import Image
from published_rows import rows_of
from test_importing import GQA
from test_published import ASK, PLAIN, action, row, span, write

from vpt_data.corpus.reader import open_corpus
from vpt_data.exchange.comparison.difference import difference
from vpt_data.exchange.comparison.side import open_side
from vpt_data.exchange.exporters import EXPORTERS
from vpt_data.exchange.exporters.export import Export, export
from vpt_data.exchange.exporters.pictures import Files
from vpt_data.exchange.published.importing import import_file
from vpt_data.exchange.published.lint import lint
from vpt_data.images.root import ImageRoot

Record = dict[str, Any]
PLACEHOLDERS = r"<(?:detection_|seg_|clip_)?image>"


def exported(corpus: Path, name: str, out: Path, raw: Path | None = None, limit: int | None = None) -> Export:
    root = ImageRoot(raw) if raw else None
    return export(open_corpus(corpus), name, out, Files(out, "copy", "", root), limit=limit)


def records(out: Path, name: str) -> list[Record]:
    text = (out / EXPORTERS[name].file("train")).read_text(encoding="utf-8")
    found: list[Record] = list(map(json.loads, text.splitlines())) if EXPORTERS[name].lines else json.loads(text)
    return found


def turns(record: Record) -> list[tuple[str, Any]]:
    """Role and content of each message of a record."""
    if "conversations" in record:
        roles = {"human": "user", "gpt": "assistant"}
        return [(roles[turn["from"]], turn["value"]) for turn in record["conversations"]]
    return [(turn["role"], turn["content"]) for turn in record["messages"]]


def shown(record: Record) -> tuple[str, list[str]]:
    """All text of a record with `<image>` for each picture, and what the pictures are."""
    texts, pictures = [], [path for key, paths in record.items() if "image" in key for path in paths]
    for _, parts in turns(record):
        if isinstance(parts, str):
            texts.append(re.sub(PLACEHOLDERS, "<image>", parts))
            continue
        pictures += [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        texts.append("".join(part["text"] if part["type"] == "text" else "<image>" for part in parts))
    return "\0".join(texts), pictures


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_row_is_exported_whole_or_counted(
    name: str, reference_corpus: Path, sample_root: Path, tmp_path: Path
) -> None:
    made = exported(reference_corpus, name, tmp_path, sample_root)
    by_id = {row["id"]: row for row in rows_of(reference_corpus)}
    assert made.rows + sum(made.left_out.values()) == len(by_id)
    found, origins = records(tmp_path, name), pq.read_table(tmp_path / "origins.parquet").to_pylist()
    assert len(found) == len(origins) == made.rows
    for number, (record, origin) in enumerate(zip(found, origins, strict=True)):
        row = by_id[origin["id"]]
        assert (origin["file"], origin["row"]) == (EXPORTERS[name].file("train"), number)
        text, pictures = shown(record)
        assert text == "\0".join(re.sub(PLACEHOLDERS, "<image>", turn["content"]) for turn in row["messages"])
        assert len(pictures) == text.count("<image>") == len(row["views"])
        roles = [role for role, _ in turns(record) if role != "system"]
        assert roles[0] == "user" and roles[-1] == "assistant" and all(a != b for a, b in pairwise(roles))
        for picture in pictures:
            assert picture.startswith("data:image/") or (tmp_path / re.sub(r"_[\d,]+$", "", picture)).is_file()
    assert json.loads((tmp_path / "export.json").read_bytes())["fingerprint"] == made.fingerprint


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_same_corpus_gives_the_same_bytes_whether_images_are_inside_or_not(
    name: str, reference_corpus: Path, embedded_corpus: Path, sample_root: Path, tmp_path: Path
) -> None:
    few = [exported(reference_corpus, name, tmp_path / out, sample_root, limit=20) for out in ("a", "b")]
    assert few[0] == few[1] and few[0].limited and few[0].rows + sum(few[0].left_out.values()) == 20
    assert exported(embedded_corpus, name, tmp_path / "c", limit=5).rows > 0


def test_the_published_form_comes_back_as_the_same_rows(
    reference_corpus: Path, sample_root: Path, tmp_path: Path
) -> None:
    made = exported(reference_corpus, "vpt-llamafactory", tmp_path / "out", sample_root)
    assert list(made.left_out) == ["it has a crop that no region tokens name"]
    file = tmp_path / "out/train.json"
    assert lint(file).findings == []
    import_file(file, tmp_path / "back", False, sample_root)
    found = difference(open_side(reference_corpus), open_side(tmp_path / "back"))
    assert found.kinds == {"only_in_a": sum(made.left_out.values())}
    entry = json.loads((tmp_path / "out/dataset_info.json").read_text())["vpt_train"]
    assert entry["file_name"] == "train.json" and entry["columns"]["clip_images"] == "clip_images"


def test_published_rows_go_in_and_out_byte_for_byte(tmp_path: Path) -> None:
    quoted = row(
        f"What type of structure does the clock tower belong to in the image?\n<image>\n{ASK}",
        "<|detection_action_start|><|detection_action|><|detection_action_end|>", "<detection_image>", "A church.",
        images=["/data/COCO/train2017/1.jpg"], detection_images=["/data/COCO/train2017/1.jpg"],
    )  # fmt: skip
    rows = [GQA, quoted, PLAIN, action()]
    import_file(write(tmp_path / "vpt.json", rows), tmp_path / "corpus", False, tmp_path)
    assert run("export", tmp_path / "corpus", "--to", "vpt-llamafactory", "--out", tmp_path / "out").exit_code == 0
    assert json.dumps(records(tmp_path / "out", "vpt-llamafactory")) == json.dumps(rows), (
        "keys are in the same order too"
    )
    import_file(tmp_path / "vpt.json", tmp_path / "repaired", True, tmp_path)
    out = tmp_path / "repaired-out"
    assert (
        run("export", tmp_path / "repaired", "--to", "vpt-llamafactory", "--out", out, "--prefix", "raw").exit_code == 0
    )
    first = records(out, "vpt-llamafactory")[0]
    assert first["images"][1] == "raw/gqa/images/2408356.jpg_0,0,500,328"
    assert first["messages"][1]["content"] == span(0, 0, 7, 6)


def test_crops_are_the_pixels_of_their_box(tmp_path: Path) -> None:
    (tmp_path / "gqa/images").mkdir(parents=True)
    Image.effect_noise((500, 375), 80).convert("RGB").save(tmp_path / "gqa/images/2408356.jpg")
    import_file(write(tmp_path / "vpt.json", [GQA]), tmp_path / "corpus", True, tmp_path)
    exported(tmp_path / "corpus", "llamafactory", tmp_path / "files", tmp_path)
    whole, crop = records(tmp_path / "files", "llamafactory")[0]["images"]
    assert (tmp_path / "files" / whole).read_bytes() == (tmp_path / "gqa/images/2408356.jpg").read_bytes()
    exported(tmp_path / "corpus", "openai", tmp_path / "inside", tmp_path)
    _, pictures = shown(records(tmp_path / "inside", "openai")[0])
    with (
        Image.open(tmp_path / "gqa/images/2408356.jpg") as stored,
        Image.open(tmp_path / "files" / crop) as cut,
        Image.open(io.BytesIO(base64.b64decode(pictures[1].partition(",")[2]))) as inside,
    ):
        assert cut.tobytes() == stored.convert("RGB").crop((0, 0, 500, 328)).tobytes() == inside.tobytes()
    Image.new("RGB", (400, 375)).save(tmp_path / "gqa/images/2408356.jpg")
    made = error("export", tmp_path / "corpus", "--to", "openai", "--out", tmp_path / "no", "--raw", tmp_path)
    assert "no row can be exported to openai (an image is not there, cannot be decoded" in made


def test_crops_of_images_that_differ_by_their_suffix_are_two_files(tmp_path: Path) -> None:
    made = Files(tmp_path, "copy", "", None)
    paths = []
    for name, color in (("x/1.jpg", "red"), ("x/1.png", "blue"), ("x/1.png_0_0_10_10.png", "lime")):
        image = io.BytesIO()
        Image.new("RGB", (20, 20), color).save(image, "PNG")
        row = {
            "id": name,
            "source": "table",
            "meta": "",
            "images": [{"path": name, "bytes": image.getvalue()}],
            "image_info": [{"width": 20, "height": 20}],
            "views": [{"turn": 0, "image": 0, "encoder": "vlm", "box": [0, 0, 10, 10], "cells": None}],
        }
        paths += [made.file(row, 0), made.path(row, 0)]
    assert len(set(paths)) == 6
    colors = [Image.open(tmp_path / path).convert("RGB").getpixel((5, 5)) for path in paths[::2]]
    assert colors == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


def test_a_stopped_export_is_not_continued_as_another_one(reference_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", reference_corpus, "--to", "vpt-llamafactory", "--out", out, "--limit", "3").exit_code == 0
    made = (out / "export.json").read_bytes()
    (out / ".export.json").write_text("{}\n")
    sentence = "a run with other options was stopped here; give an empty or new folder for the export."
    assert sentence in error("export", reference_corpus, "--to", "vpt-llamafactory", "--out", out, code=1)
    assert (out / "export.json").read_bytes() == made


def test_mistakes_are_one_sentence(reference_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def fails(*options: str, code: int = 2) -> str:
        return error("export", reference_corpus, "--out", tmp_path / "out", *options, code=code)

    assert "Unknown format 'llama'; did you mean" in fails("--to", "llama")
    assert "Unknown split" in fails("--to", "openai", "--split", "test")
    assert "give the raw root with them (--raw)" in fails("--to", "openai")
    assert "leave it out, or give --images path" in fails("--to", "openai", "--images", "copy", "--prefix", "a")
    (tmp_path / "out/mine").touch()
    (tmp_path / "out/.export.json").unlink()
    assert "the folder is not empty; give an empty or new folder for the export" in fails("--to", "openai", code=1)


def test_the_page_lists_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
    for name, entry in EXPORTERS.items():
        assert f"| `{name}` | {entry.follows} | {entry.crops} | {entry.loss} |" in page


def test_real_rows_with_the_published_defect_are_repaired_to_the_rows_of_a_build(shared: Path, tmp_path: Path) -> None:
    recipe = '[take.gqa]\nsource = "viscot_benchmark"\ndataset = "gqa"\ntemplate = "region"\ntask = "spatial"\n'
    for edge in ("floor", "legacy"):
        (tmp_path / f"{edge}.toml").write_text(f'edge = "{edge}"\n{recipe}', encoding="utf-8")
        end_to_end.build(str(tmp_path / f"{edge}.toml"), shared / "data/raw", tmp_path / edge)
    options = ("--to", "vpt-llamafactory", "--out", tmp_path / "out")
    assert run("export", tmp_path / "legacy", *options).exit_code == 0
    made = import_file(tmp_path / "out/train.json", tmp_path / "repaired", True, tmp_path)
    assert (made.components[0].kept, made.components[0].repaired) == (978, {"off_grid": 105})
    found = difference(open_side(tmp_path / "floor"), open_side(tmp_path / "repaired"))
    assert (found.kinds, found.same) == ({}, 978)
