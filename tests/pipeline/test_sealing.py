"""Accounted for: every raw record ends in a shard or in the drop table, under the take and reason that fit."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers import end_to_end
from helpers.command import run
from helpers.end_to_end import OWN, own_take
from PIL import Image

from vpt_data.corpus.manifest import read
from vpt_data.images.identity import identities
from vpt_data.synthetic import write_sample


def own(folder: Path, records: list[dict[str, Any]], text: str = OWN, **options: Any) -> Path:
    """The corpus of a recipe for own/rows.jsonl."""
    raw = end_to_end.own_root(folder / "raw", records)
    return end_to_end.build(end_to_end.recipe_file(folder, text), raw, folder / "corpus", **options)


def picture(path: Path, size: tuple[int, int], color: str, **options: Any) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path.read_bytes()


def test_the_account_of_the_sample_adds_up(reference_corpus: Path, embedded_corpus: Path) -> None:
    account = end_to_end.account(reference_corpus)
    assert account == end_to_end.account(embedded_corpus)
    assert sum(part.kept for part in account.values()) == sum(s.rows for s in read(reference_corpus).splits.values())
    assert account["docvqa"].dropped == {"duplicate": 1, "empty_answer": 1, "malformed": 1}
    assert account["own_receipts"].repaired == {"swapped": 1}
    assert account["unmatched:llava"].dropped == {"not_selected": account["unmatched:llava"].read}


def test_both_image_modes_have_the_same_rows(reference_corpus: Path, embedded_corpus: Path) -> None:
    assert end_to_end.ids_by_shard(embedded_corpus) == end_to_end.ids_by_shard(reference_corpus)
    assert end_to_end.origins(embedded_corpus) == end_to_end.origins(reference_corpus)
    without, with_bytes = end_to_end.rows(reference_corpus), end_to_end.rows(embedded_corpus)
    for one, other in zip(without, with_bytes, strict=True):
        assert [image["bytes"] for image in one["images"]] == [None] * len(one["images"])
        assert [info["sha256"] for info in one["image_info"]] == [None] * len(one["images"])
        # Without a box nobody needs the size, so it is known only once the image has been opened.
        sizes = [(info["width"], info["height"]) for info in one["image_info"]]
        assert all(size == (None, None) for size in sizes) or one["image_info"] == unhashed(other)
        assert {**one, "images": 0, "image_info": 0} == {**other, "images": 0, "image_info": 0}
        assert [image["path"] for image in one["images"]] == [image["path"] for image in other["images"]]
    assert read(reference_corpus).fingerprint != read(embedded_corpus).fingerprint


def unhashed(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**info, "sha256": None} for info in row["image_info"]]


def test_every_id_leads_to_its_raw_record(sample_root: Path, reference_corpus: Path) -> None:
    """Records are looked up without the package; the row counts damaged records and not blank lines."""
    places = {origin["id"]: (origin["file"], origin["row"]) for origin in end_to_end.origins(reference_corpus)}
    checked: Counter[str] = Counter()
    for row in end_to_end.rows(reference_corpus):
        file, number = places[row["id"]]
        text = (sample_root / file).read_text(encoding="utf-8")
        if file.endswith(".csv"):
            assert list(csv.DictReader(io.StringIO(text)))[number]["question"] == row["question"]
        elif row["source"] == "viscot":
            assert json.loads(text.splitlines()[number])["question"] == row["question"]
        elif row["source"] in {"llava", "llava_pretrain"}:
            record = json.loads(text)[number]
            assert record["conversations"][1]["value"] == row["answers"][0]
            assert str(record["id"]) == row["source_id"]
        elif row["source"] == "vsr":
            assert json.loads(text.splitlines()[number])["caption"] in row["messages"][0]["content"]
        else:
            record = json.loads(text.splitlines()[number])
            assert row["question"] == record.get("frage", record.get("question"))
        checked[row["source"]] += 1
    assert set(checked) == {"viscot", "llava", "llava_pretrain", "vsr", "table", "coco_boxes"}


def test_a_drop_names_file_and_line(tmp_path: Path) -> None:
    good = end_to_end.own_rows(4)
    text = end_to_end.lines(good[:2]) + '\n{"image": "x.jpg", "que\n' + end_to_end.lines(good[2:3])
    text += end_to_end.lines([{**good[3], "answer": " "}])
    raw = end_to_end.own_root(tmp_path / "raw", [])
    (raw / "own/rows.jsonl").write_text(text)
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path), raw, tmp_path / "corpus")
    part = end_to_end.account(corpus)["mine"]
    assert (part.read, part.kept, part.dropped) == (5, 3, {"empty_answer": 1, "malformed": 1})
    found = {drop["reason"]: (drop["file"], drop["line"], drop["detail"]) for drop in end_to_end.drops(corpus)}
    assert found["malformed"][:2] == ("own/rows.jsonl", 4)
    assert found["empty_answer"] == ("own/rows.jsonl", 6, "an answer is empty")
    assert sorted(origin["row"] for origin in end_to_end.origins(corpus)) == [0, 1, 3]


def test_boxes_are_repaired_or_dropped(tmp_path: Path) -> None:
    boxes = {
        "swapped": [400, 300, 100, 20],
        "clipped": [-5, 10, 100, 500],
        "zero_area": [50, 50, 50, 80],
        "outside": [700, 10, 800, 20],
        "good": [0, 0, 640, 480],
    }
    records = [{**row, "box": box} for row, box in zip(end_to_end.own_rows(5), boxes.values(), strict=True)]
    corpus = own(tmp_path, [*records, {**end_to_end.own_rows(1, 6)[0], "w": None, "h": None}])
    part = end_to_end.account(corpus)["mine"]
    assert part.repaired == {"swapped": 1, "clipped": 1, "zero_area": 1}
    repaired = {origin["row"]: origin["repaired"] for origin in end_to_end.origins(corpus)}
    assert repaired == {0: ["swapped"], 1: ["clipped"], 2: ["zero_area"], 4: []}
    assert part.dropped == {"no_region_left": 1, "missing_image": 1}
    details = {drop["reason"]: (drop["line"], drop["detail"]) for drop in end_to_end.drops(corpus)}
    assert details["no_region_left"] == (4, "every box is outside the image")
    line, detail = details["missing_image"]
    assert line == 6 and detail.endswith(": not under the raw root")
    by_question = {row["question"]: row for row in end_to_end.rows(corpus)}
    cells = [by_question[f"What is number {number}?"]["views"][1]["cells"] for number in (0, 1, 2, 4)]
    assert cells == [[1, 0, 5, 5], [0, 0, 1, 7], [0, 0, 0, 1], [0, 0, 7, 7]]


def test_an_earlier_take_claims_what_it_keeps(tmp_path: Path) -> None:
    records = end_to_end.own_rows(10)
    corpus = own(tmp_path, [*records, records[3]], OWN + "count = 4\n" + own_take("rest", template="plain"))
    account = end_to_end.account(corpus)
    first, rest = account["mine"], account["rest"]
    assert (first.read, first.kept, first.dropped) == (11, 4, {"duplicate": 1, "not_selected": 6})
    assert (rest.read, rest.kept, rest.dropped) == (10, 6, {"claimed": 4})
    keys = {name: {i.partition("/")[2] for i in end_to_end.ids(corpus) if i.startswith(name)} for name in account}
    assert keys["mine"].isdisjoint(keys["rest"])
    assert {drop["key"] for drop in end_to_end.drops(corpus) if drop["reason"] == "claimed"} == keys["mine"]
    assert {drop["key"] for drop in end_to_end.drops(corpus) if drop["reason"] == "not_selected"} == keys["rest"]


def test_equal_rows_are_one_and_others_are_not(tmp_path: Path) -> None:
    row = end_to_end.own_rows(1)[0]
    differ = [{"answer": "else"}, {"question": "Else?"}, {"image": "else.jpg"}, {"box": [1, 2, 3, 4]}, {}, {}]
    part = end_to_end.account(own(tmp_path, [row | change for change in differ]))["mine"]
    assert (part.read, part.kept, part.dropped) == (6, 5, {"duplicate": 1})


def test_an_evaluation_split_and_the_rest_for_training(tmp_path: Path) -> None:
    """Two takes over one own file: the evaluation split picks first, training gets what is left."""
    held_out = own_take("held", template="plain", expected="region", split="validation", count=5)
    corpus = own(tmp_path, end_to_end.own_rows(20), "name = 'split'" + held_out + own_take("rest"))
    end_to_end.account(corpus)
    held, train = end_to_end.rows(corpus, "validation"), end_to_end.rows(corpus, "train")
    assert (len(held), len(train)) == (5, 15)
    assert {row["question"] for row in held}.isdisjoint({row["question"] for row in train})
    assert all(row["expected"] == "region" and row["looks"] == [] and len(row["messages"]) == 2 for row in held)
    assert all(row["expected"] is None and row["looks"] == ["region"] for row in train)


def test_two_files_with_the_same_ids_give_different_ids(tmp_path: Path) -> None:
    """Each file numbers its rows from 0: all of them are kept, each under an id of its own."""
    raw = end_to_end.own_root(tmp_path / "raw", [{**row, "id": n} for n, row in enumerate(end_to_end.own_rows(6))])
    more = end_to_end.lines({**row, "id": n} for n, row in enumerate(end_to_end.own_rows(6, start=50)))
    (raw / "own/more.jsonl").write_text(more)
    text = OWN.replace('"own/rows.jsonl"', '"own/rows.jsonl", "own/more.jsonl"').replace("{ box", '{ id = "id", box')
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, text), raw, tmp_path / "corpus")
    part = end_to_end.account(corpus)["mine"]
    assert (part.read, part.kept) == (12, 12)


def test_a_take_of_several_data_sets_has_no_id_twice(sample_root: Path, tmp_path: Path) -> None:
    """POPE numbers the questions of each of its files from 1, and asks some of them in several."""
    text = """
        name = "pope"
        [take.pope]
        source = "pope"
        dataset = ["coco_popular", "coco_random", "coco_adversarial"]
        template = "plain"
        expected = "reencode"
        task = "general"
    """
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, text), sample_root, tmp_path / "corpus")
    part = end_to_end.account(corpus)["pope"]
    assert (part.read, part.kept) == (108, 108)


def test_the_same_row_in_two_files_is_one(tmp_path: Path) -> None:
    records = [{**row, "image": f"{n:012d}.jpg"} for n, row in enumerate(end_to_end.own_rows(6))]
    raw = end_to_end.own_root(tmp_path / "raw", records)
    (raw / "own/more.jsonl").write_text(end_to_end.lines(records[4:]))
    text = OWN.replace('"own/rows.jsonl"', '"own/*.jsonl"').replace("own/images", "coco/train2017")
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, text), raw, tmp_path / "corpus")
    part = end_to_end.account(corpus)["mine"]
    assert (part.read, part.kept, part.dropped) == (8, 6, {"duplicate": 2})


def test_no_training_row_shows_an_evaluation_image(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    evaluation = end_to_end.build("sample_eval", sample_root, tmp_path / "corpus")
    seen, held = ({who for row in end_to_end.rows(c) for who in images(row)} for c in (reference_corpus, evaluation))
    assert seen.isdisjoint(held)
    dropped = Counter(drop["reason"] for drop in end_to_end.drops(reference_corpus))
    assert dropped["eval_image"] > 0


def test_own_evaluation_images_stay_out_of_own_training_rows(tmp_path: Path) -> None:
    """Images are shared by two files of rows: those that the evaluation recipe shows are not trained on."""
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(30))
    held = end_to_end.lines({**row, "question": "Another?"} for row in end_to_end.own_rows(6))
    (raw / "own/held.jsonl").write_text(held)
    text = OWN.replace("own/rows", "own/held")
    evaluation = end_to_end.recipe_file(tmp_path, text.replace('"region"', '"plain"\nexpected = "region"'), "held.toml")
    training = end_to_end.recipe_file(tmp_path, f"exclude = {json.dumps(evaluation.name)}\n{OWN}")
    part = end_to_end.account(end_to_end.build(training, raw, tmp_path / "corpus"))["mine"]
    assert (part.read, part.dropped) == (30, {"eval_image": 6})


def images(row: dict[str, Any]) -> list[str]:
    paths = [image["path"] for image in row["images"]]
    named: list[str] = identities(pa.array(paths, pa.string())).to_pylist()
    return named


@pytest.fixture
def pictured(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A raw root with good, missing, broken, empty and resized images; six rows."""
    raw = end_to_end.own_root(tmp_path / "raw", [])
    folder = raw / "own/images"
    picture(folder / "good.png", (64, 48), "red")
    picture(folder / "shared.jpg", (64, 48), "blue")
    picture(folder / "resized.png", (32, 24), "red")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:50])
    (folder / "empty.png").write_bytes(b"")
    names = ["good.png", "shared.jpg", "shared.jpg", "missing.png", "resized.png", "broken.png", "empty.png"]
    records = [
        {"image": name, "question": f"Question {n}?", "answer": "a", "box": [1, 1, 20, 20], "w": 64, "h": 48}
        for n, name in enumerate(names)
    ]
    return raw, records


def test_embedding_keeps_rows_with_a_good_image_only(
    tmp_path: Path, pictured: tuple[Path, list[dict[str, Any]]]
) -> None:
    raw, records = pictured
    corpus = own(tmp_path, records, mode="embed")
    part = end_to_end.account(corpus)["mine"]
    assert (part.kept, part.dropped) == (3, {"bad_image": 2, "missing_image": 1, "size_mismatch": 1})
    for row in end_to_end.rows(corpus):
        (image,), (info,) = row["images"], row["image_info"]
        data = (raw / image["path"]).read_bytes()
        assert image["bytes"] == data
        assert info["sha256"] == hashlib.sha256(data).hexdigest()
        assert (info["width"], info["height"]) == (64, 48)
    made = read(corpus)
    assert (made.mode, made.images.distinct, made.images.embedded, made.images.missing) == ("embed", 2, 2, 0)
    details = {drop["reason"]: drop["detail"] for drop in end_to_end.drops(corpus)}
    assert details["missing_image"] == "own/images/missing.png: not under the raw root"
    assert details["size_mismatch"] == "own/images/resized.png: the file is 32x24, the annotation says 64x48"
    assert {drop["file"] for drop in end_to_end.drops(corpus)} == {"own/rows.jsonl"}


def test_reference_mode_keeps_every_row_and_counts_missing_images(
    tmp_path: Path, pictured: tuple[Path, list[dict[str, Any]]]
) -> None:
    corpus = own(tmp_path, pictured[1])
    assert end_to_end.account(corpus)["mine"].kept == 7
    made = read(corpus)
    assert (made.mode, made.images.distinct, made.images.embedded, made.images.missing) == ("reference", 6, 0, 1)


def test_an_image_in_many_rows_is_stored_once(tmp_path: Path) -> None:
    noise = Image.effect_noise((320, 240), 90)
    raw = end_to_end.own_root(tmp_path / "raw", [])
    (raw / "own/images").mkdir()
    noise.save(raw / "own/images/noise.png")
    size = (raw / "own/images/noise.png").stat().st_size
    records = [{**row, "image": "noise.png", "w": 320, "h": 240} for row in end_to_end.own_rows(50)]
    corpus = own(tmp_path, [{**row, "box": [0, 0, 9, 9]} for row in records], mode="embed")
    assert size < sum(map(len, end_to_end.shards(corpus).values())) < 2 * size
    assert len(end_to_end.rows(corpus)) == 50


def test_an_unusual_image_is_stored_upright(tmp_path: Path) -> None:
    """EXIF orientation 6 says that readers should turn it; the annotation knows the stored pixels."""
    raw = end_to_end.own_root(tmp_path / "raw", [])
    exif = Image.Exif()
    exif[274] = 6
    picture(raw / "own/images/turned.jpg", (64, 48), "red", exif=exif)
    row = {**end_to_end.own_rows(1)[0], "image": "turned.jpg", "box": [0, 0, 9, 9], "w": 64, "h": 48}
    corpus = own(tmp_path, [row], mode="embed")
    assert end_to_end.account(corpus)["mine"].repaired == {"rewritten": 1}
    assert [origin["repaired"] for origin in end_to_end.origins(corpus)] == [["rewritten"]]
    stored = Image.open(io.BytesIO(end_to_end.rows(corpus)[0]["images"][0]["bytes"]))
    assert (stored.size, stored.getexif().get(274, 1)) == ((64, 48), 1)


def test_paths_out_of_the_raw_root_are_dropped(tmp_path: Path) -> None:
    rows = [
        {**row, "image": name} for row, name in zip(end_to_end.own_rows(2), ("../../../x.png", "/x.png"), strict=True)
    ]
    part = end_to_end.account(own(tmp_path, [*rows, *end_to_end.own_rows(1, 9)]))["mine"]
    assert (part.kept, part.dropped) == (1, {"unsafe_path": 2})


def test_without_visual_genomes_list_the_exclusion_is_not_complete(tmp_path: Path) -> None:
    """Training rows name photos by COCO's number and evaluation rows by Visual Genome's: only its list joins them."""
    write_sample(tmp_path / "raw", rows=12)
    arguments = ["build", "--recipe", "sample", "--raw", tmp_path / "raw", "--workers", "1", "--out"]
    whole = run(*arguments, tmp_path / "whole")
    assert (whole.exit_code, read(tmp_path / "whole").not_checked) == (0, [])
    assert "evaluation data" not in whole.stderr
    (tmp_path / "raw/vg/image_data.json").unlink()
    unsure = run(*arguments, tmp_path / "unsure")
    missing = "Visual Genome's list of COCO images (vg/image_data.json)"
    assert (unsure.exit_code, read(tmp_path / "unsure").not_checked) == (0, [missing])
    warning = (
        "Warning: training rows may show images of evaluation data, since these files are not under the raw root: "
        f"{missing}; `vpt-data sources` says how to get them."
    )
    assert warning in unsure.stderr.splitlines()
    assert missing in (tmp_path / "unsure/README.md").read_text(encoding="utf-8")
