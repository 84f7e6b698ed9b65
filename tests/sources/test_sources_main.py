"""The readers of Visual-CoT, LLaVA and POPE: real rows where they are present, and made-up damage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vpt_data.schema import ANNOTATION, Reason
from vpt_data.sources import llava, llava_pretrain, pope, viscot, viscot_benchmark
from vpt_data.sources.base import Chunk, Drop, Job, Source
from vpt_data.upstream.rawfile import RawFile

BOX_WANTED = " Please provide the bounding box coordinate of the region that can help you answer the question better."


class Read(NamedTuple):
    rows: list[dict[str, Any]]
    row: list[int]
    line: list[int]
    forms: list[str]
    drops: list[Drop]


def read(source: Source, dataset: str, limit: int | None = None, **files: Path) -> Read:
    """Everything a source makes of these files, after a look at whether its chunks are well formed."""
    raw = {role: RawFile(path, path.name) for role, path in files.items()}
    chunks = [checked(chunk) for chunk in source.read(Job("source", dataset, raw, limit=limit))]
    return Read(
        [row for chunk in chunks for row in chunk.annotations.to_pylist()],
        [row for chunk in chunks for row in chunk.row.tolist()],
        [line for chunk in chunks if chunk.line is not None for line in chunk.line.tolist()],
        [form for chunk in chunks if chunk.form is not None for form in chunk.form.to_pylist()],
        [drop for chunk in chunks for drop in chunk.drops],
    )


def checked(chunk: Chunk) -> Chunk:
    chunk.annotations.validate(full=True)
    assert chunk.annotations.schema.equals(ANNOTATION)
    assert len(chunk.row) == len(chunk.annotations)
    assert chunk.form is None or len(chunk.form) == len(chunk.annotations)
    assert all(drop.reason is Reason.MALFORMED for drop in chunk.drops)
    return chunk


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def details(found: Read) -> list[tuple[int, str]]:
    return [(drop.row, drop.detail) for drop in found.drops]


VISCOT: dict[str, Any] = {
    "question": "What is it?", "answer": "a cat", "image": "1.jpg", "width": 640, "height": 480,
    "bboxs": [[1, 2, 3.5, 4]], "dataset": "docvqa", "split": "train",
}  # fmt: skip


@pytest.mark.parametrize(("dataset", "count"), [("vsr", 3_376), ("cub", 10_056)])
def test_viscot_reads_real_files(shared: Path, dataset: str, count: int) -> None:
    path = shared / f"data/raw/visual_cot/viscot_dataset/{dataset}_cot_train.jsonl.gz"
    found = read(viscot.SOURCE, dataset, rows=path)
    assert found.drops == []
    assert found.row == list(range(count))
    assert found.line == list(range(1, count + 1))
    assert {row["dataset"] for row in found.rows} == {dataset}
    assert {row["split"] for row in found.rows} == {"train"}
    assert {row["region_status"] for row in found.rows} == {"given"}
    assert {len(row["regions"]) for row in found.rows} == {1}
    assert {len(row["answers"]) for row in found.rows} == {1}
    first = found.rows[0]
    if dataset == "vsr":
        assert first["images"] == [{"path": "coco/train2017/000000068878.jpg", "width": 640, "height": 640}]
        box = [34.41, 379.87, 608.3399999999999, 615.23]
        assert first["regions"] == [{"image": 0, "box": box, "label": None}]
        assert (first["question"], first["answers"]) == ("Is the car over the cat?", ["No"])
    else:
        name = "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg"
        assert first["images"][0]["path"] == "cub/CUB_200_2011/images/" + name
        assert sum(row["answers"] == ["Yes"] for row in found.rows) == 5_028


def test_viscot_keeps_distinct_boxes_and_answers_in_order(tmp_path: Path) -> None:
    answers = {"answer": "Cat", "possible_answers": ["cat", "Cat", "CAT", "cat"]}
    boxes = [[5, 6, 7, 8], [1, 2, 3, 4], [5, 6, 7.0, 8], [0, -2, 1e9, 4]]
    path = lines(tmp_path / "x", [VISCOT | answers | {"bboxs": boxes}, VISCOT | {"bboxs": []}, VISCOT])
    several, none, one = read(viscot.SOURCE, "docvqa", rows=path).rows
    assert several["answers"] == ["Cat", "cat", "CAT"]
    given = [[5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0], [0.0, -2.0, 1e9, 4.0]]
    assert [region["box"] for region in several["regions"]] == given
    assert (none["regions"], none["region_status"]) == ([], "unknown")
    assert (one["region_status"], one["answers"], one["meta"], one["key"]) == ("given", ["a cat"], None, None)


def test_viscot_says_what_is_wrong_with_a_row(tmp_path: Path) -> None:
    without = {name: value for name, value in VISCOT.items() if name != "answer"}
    rows = [
        VISCOT | {"width": 640.0}, without, VISCOT | {"width": 640.5}, VISCOT | {"bboxs": [[1, 2, 3]]},
        VISCOT | {"dataset": "gqa"}, VISCOT | {"height": 2**31}, VISCOT | {"answer": 5},
        VISCOT | {"question": "", "image": "../x", "more": {}},
    ]  # fmt: skip
    found = read(viscot.SOURCE, "docvqa", rows=lines(tmp_path / "x", rows))
    assert found.row == [0, 7]
    assert found.line == [1, 8]
    assert found.rows[0]["images"] == [{"path": "docvqa/documents/1.jpg", "width": 640, "height": 480}]
    assert found.rows[1]["images"][0]["path"] == "docvqa/documents/../x"
    assert details(found) == [
        (1, "Object missing required field `answer`"),
        (2, "Expected `float` that's a multiple of 1.0 - at `$.width`"),
        (3, "Expected `array` of length 4 - at `$.bboxs[0]`"),
        (4, "dataset is 'gqa', expected 'docvqa'"),
        (5, "Expected `float` <= 2147483647.0 - at `$.height`"),
        (6, "Expected `str`, got `int` - at `$.answer`"),
    ]


def test_visual7w_rows_may_call_themselves_v7w(tmp_path: Path) -> None:
    rows = [VISCOT | {"dataset": name} for name in ("v7w", "visual7w", "vsr")]
    found = read(viscot.SOURCE, "visual7w", rows=lines(tmp_path / "x", rows))
    assert [row["dataset"] for row in found.rows] == ["visual7w", "visual7w"]
    assert found.rows[0]["images"][0]["path"] == "visual7w/images/1.jpg"
    assert details(found) == [(2, "dataset is 'vsr', expected 'visual7w'")]


def test_gqa_reasoning_is_kept_as_meta_whatever_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = [{"thought": f"né {i}", "reasoning": [{"operation": "select", "argument": i}]} for i in range(50)]
    rows = [VISCOT | {"dataset": "gqa"} | more for more in extra]
    rows += [VISCOT | {"dataset": "gqa", "full_answer": "yes"}, VISCOT | {"dataset": "gqa"}]
    path = lines(tmp_path / "x", rows)
    whole = read(viscot.SOURCE, "gqa", rows=path)
    assert [json.loads(row["meta"]) for row in whole.rows[:-1]] == [*extra, {"full_answer": "yes"}]
    assert whole.rows[-1]["meta"] is None
    real = viscot.read_records
    monkeypatch.setattr(viscot, "read_records", lambda *a, **k: real(*a, **k, chunk_bytes=700))
    assert read(viscot.SOURCE, "gqa", rows=path) == whole


def benchmark(folder: Path, dataset: str) -> dict[str, Path]:
    return {
        "rows": folder / f"benchmark_det/{dataset}.jsonl.gz",
        "answers": folder / f"benchmark/{dataset}.json.gz",
    }


@pytest.mark.parametrize(("dataset", "count"), [("docvqa", 888), ("gqa", 978), ("cub", 492)])
def test_benchmark_joins_real_files(shared: Path, dataset: str, count: int) -> None:
    files = benchmark(shared / "data/raw/visual_cot/viscot_benchmark", dataset)
    found = read(viscot_benchmark.SOURCE, dataset, **files)
    assert found.drops == []
    assert len(found.rows) == count
    assert len({row["source_id"] for row in found.rows}) == count
    assert {row["split"] for row in found.rows} == {"val"}
    assert {row["region_status"] for row in found.rows} == {"given"}
    folder = viscot.IMAGE_FOLDER[dataset]
    assert all(row["images"][0]["path"].startswith(folder) for row in found.rows)
    if dataset == "docvqa":
        swapped = sum(box[0] > box[2] or box[1] > box[3] for row in found.rows for box in [row["regions"][0]["box"]])
        assert swapped == 8
        assert found.rows[0]["answers"] == ["A. C. Monk"]
        assert found.rows[0]["regions"][0]["box"] == [74.0, 398.0, 404.0, 1118.0]
    if dataset == "cub":
        assert Counter(answer for row in found.rows for answer in row["answers"]).keys() == {"Yes", "No"}


def asked(number: int, file: str = "v7w/1.jpg", question: str = "Who?") -> dict[str, Any]:
    return {
        "img_path": f"cot/{file}", "expression": question, "bbox": [1, 2, 3, 4], "height": 9, "width": 8.0,
        "question_id": number, "split": "val",
    }  # fmt: skip


def answered(number: int, answer: str, file: str = "visual7w/1.jpg", question: str = "Who?") -> dict[str, Any]:
    said = [f"<image>\nWho?{BOX_WANTED}", "[0.1, 0.2, 0.3, 0.4]", "<image>", answer]
    turns = [{"from": "human" if i % 2 == 0 else "gpt", "value": text} for i, text in enumerate(said)]
    images = [f"cot/{file}", f"cot/{file}###[1, 2, 3, 4]"]
    return {"dataset": "v7w", "split": "val", "question_id": number, "image": images, "conversations": turns}


def test_benchmark_joins_by_question_id_in_any_order(tmp_path: Path) -> None:
    answers = [answered(2, "two"), answered(1, "eins", "visual7w/2.jpg"), answered(1, "one")]
    (tmp_path / "a").write_text(json.dumps(answers, indent=4))
    path = lines(tmp_path / "x", [asked(1), asked(2), asked(1, "v7w/2.jpg")])
    found = read(viscot_benchmark.SOURCE, "visual7w", rows=path, answers=tmp_path / "a")
    assert found.drops == []
    assert [row["answers"] for row in found.rows] == [["one"], ["two"], ["eins"]]
    assert [row["source_id"] for row in found.rows] == ["1", "2", "1"]
    assert found.rows[2]["images"] == [{"path": "visual7w/images/2.jpg", "width": 8, "height": 9}]


def test_benchmark_says_which_rows_have_no_partner(tmp_path: Path) -> None:
    short = answered(3, "x")
    short["conversations"].pop()
    answers = [answered(1, "x"), answered(2, "x"), short, "no record", answered(5, "good"), answered(7, "x")]
    (tmp_path / "a").write_text(json.dumps(answers))
    rows = [
        asked(1, "v7w/9.jpg"),
        asked(2, question="Why?"),
        asked(3),
        asked(4),
        asked(5),
        asked(7) | {"bbox": None},
    ]
    rows.append(asked(5) | {"img_path": "v7w/1.jpg"})
    found = read(viscot_benchmark.SOURCE, "visual7w", rows=lines(tmp_path / "x", rows), answers=tmp_path / "a")
    assert [row["answers"] for row in found.rows] == [["good"]]
    assert details(found) == [
        (0, "question_id 1 is about image '1.jpg' in the answers file"),
        (1, "question_id 2 asks 'Who?' in the answers file"),
        (2, "question_id 3 has no usable record in the answers file"),
        (3, "question_id 4 has no usable record in the answers file"),
        (5, "Expected `array`, got `null` - at `$.bbox`"),
        (6, "img_path is 'v7w/1.jpg', expected cot/<source>/<file>"),
    ]


def talk(*said: str, image: str | None = "coco/train2017/1.jpg", **more: Any) -> dict[str, Any]:
    turns = [{"from": "human" if i % 2 == 0 else "gpt", "value": text} for i, text in enumerate(said)]
    return {"id": "1", "conversations": turns} | ({} if image is None else {"image": image}) | more


def test_llava_reads_real_rows(shared: Path) -> None:
    path = shared / "data/raw/llava/llava_v1_5_mix665k.jsonl.gz"
    found = read(llava.SOURCE, "", rows=path)
    assert found.drops == []
    datasets = Counter(row["dataset"] for row in found.rows)
    assert datasets == {"coco": 355, "vg": 79, "ocr_vqa": 73, "gqa": 70, "textvqa": 23}
    assert Counter(zip((row["dataset"] for row in found.rows), found.forms, strict=True)) == {
        ("coco", "short"): 105, ("coco", "complex"): 75, ("coco", "choice"): 65, ("coco", "region"): 48,
        ("coco", "conversation"): 43, ("coco", "detail"): 19, ("vg", "region"): 79, ("ocr_vqa", "short"): 73,
        ("gqa", "short"): 70, ("textvqa", "ocr_tokens"): 23,
    }  # fmt: skip
    assert {row["region_status"] for row in found.rows} == {"unknown"}
    assert all(row["turns"][1]["content"] == row["answers"][0] for row in found.rows)
    assert all("<image>" in row["turns"][0]["content"] for row in found.rows)
    first = found.rows[0]
    assert (first["source_id"], first["question"], first["answers"]) == ("17", None, ["Left"])
    assert first["images"] == [{"path": "gqa/images/17.jpg", "width": None, "height": None}]
    assert [turn["role"] for turn in first["turns"][:3]] == ["user", "assistant", "user"]


FORMS = [
    ("conversation", talk("What is it?\n<image>", "A dog.", "Big?", "Yes.")),
    ("detail", talk("<image>\nWhat do you think is going on in this snapshot?", "A long text.")),
    ("detail", talk("What is this photo about'?\n<image>", "A long text.")),
    ("conversation", talk("<image>\nDescribe the following image.", "A long text.", "And?", "Nothing.")),
    ("complex", talk("<image>\nWhy is it so?", "Because.")),
    ("conversation", talk("<image>\nWhy is it so?", "Because.", image="gqa/images/1.jpg")),
    ("short", talk("<image>\nBig?\nAnswer the question using a single word or phrase.", "Yes")),
    ("choice", talk("<image>\nA. x\nAnswer with the option's letter from the given choices directly.", "A")),
    ("region", talk("<image>\nPlease provide a short description for this region: [0.1, 0, 0.3, 0.4].", "")),
    ("region", talk("<image>\nWhere is the dog?", "[0.10, 0.20, 0.30, 1.00]")),
    ("ocr_tokens", talk("<image>\nSay it.\nReference OCR token: a, b", "x", image="textvqa/1.jpg")),
    ("text", talk("Please provide a short description for this region: x", "y", image=None)),
    ("short", talk("<image>\nAnswer the question using a single word or phrase.", "x", image="vg/1.jpg")),
]  # fmt: skip


@pytest.mark.parametrize("array", [False, True])
def test_llava_tells_forms_apart(tmp_path: Path, array: bool) -> None:
    path = lines(tmp_path / "x", [record for _, record in FORMS])
    if array:
        path.write_text(json.dumps([record for _, record in FORMS]))
    found = read(llava.SOURCE, "", rows=path)
    assert found.drops == []
    assert found.forms == [form for form, _ in FORMS]
    assert set(found.forms) == set(llava.SOURCE.forms)
    assert found.rows[0]["turns"] == [
        {"role": "user", "content": "What is it?\n<image>"}, {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "Big?"}, {"role": "assistant", "content": "Yes."},
    ]  # fmt: skip
    assert (found.rows[-2]["dataset"], found.rows[-2]["images"]) == ("text", [])


def test_llava_keeps_odd_images_in_text_and_says_what_is_malformed(tmp_path: Path) -> None:
    turned = talk("x", "y")
    turned["conversations"].reverse()
    records = [
        talk("no image here", "yes"), talk("<image> <image>", "<image>"), talk("<image>\nq", "a", id=17),
        talk("x"), talk(), turned, talk("a", "b", image="https://x/1.jpg"), talk("a", "b", image=""),
        talk("a", "b", image=["coco/1.jpg"]), talk("a", "b", id=None), talk("a", "b", image="vg/V/1.jpg"),
        talk("a", "b", model="", image=None),
    ]  # fmt: skip
    records[9]["conversations"][0]["from"] = "system"
    found = read(llava.SOURCE, "all", rows=lines(tmp_path / "x", records))
    assert found.row == [0, 1, 2, 10, 11]
    assert found.line == [1, 2, 3, 11, 12]
    assert [row["dataset"] for row in found.rows] == ["coco", "coco", "coco", "vg", "text"]
    assert [row["source_id"] for row in found.rows] == ["1", "1", "17", "1", "1"]
    assert found.rows[1]["turns"][1]["content"] == "<image>"
    assert details(found) == [
        (3, "1 turns, expected an even number of at least 2"),
        (4, "0 turns, expected an even number of at least 2"),
        (5, "human and gpt do not take turns, beginning with human"),
        (6, "unknown image prefix 'https://x/1.jpg'"),
        (7, "unknown image prefix ''"),
        (8, "Expected `str | null`, got `array` - at `$.image`"),
        (9, "Expected `int | str`, got `null` - at `$.id`"),
    ]
    assert [drop.dataset for drop in found.drops] == ["coco", "coco", "coco", None, None, None, None]


def test_llava_of_nothing_but_damage_is_drops_only(tmp_path: Path) -> None:
    found = read(llava.SOURCE, "", rows=lines(tmp_path / "x", [talk("x"), {}]))
    assert (found.rows, found.forms) == ([], [])
    assert [drop.row for drop in found.drops] == [0, 1]


@pytest.mark.parametrize(
    ("dataset", "path"),
    [("blip_laion_cc_sbu_558k", "llava_pretrain/images/0/1.jpg"), ("cc3m_595k", "cc3m_595k/images/0/1.jpg")],
)
def test_llava_pretrain_reads_captions(tmp_path: Path, dataset: str, path: str) -> None:
    records = [
        talk("Say it.\n<image>", "a cat", image="0/1.jpg"), talk("<image>", "x", image=None),
        talk("<image>", "x", "y", "z"), talk("<image>"), talk("<image>\nSay", "dog", image="0/2.jpg"),
    ]  # fmt: skip
    (tmp_path / "x").write_text(json.dumps(records))
    found = read(llava_pretrain.SOURCE, dataset, rows=tmp_path / "x")
    assert [row["answers"] for row in found.rows] == [["a cat"], ["dog"]]
    assert found.forms == ["caption", "caption"]
    assert found.rows[0]["images"] == [{"path": path, "width": None, "height": None}]
    assert found.rows[0]["turns"][0] == {"role": "user", "content": "Say it.\n<image>"}
    assert {row["dataset"] for row in found.rows} == {dataset}
    assert details(found) == [
        (1, "no image"), (2, "4 turns, expected 2"), (3, "1 turns, expected an even number of at least 2")
    ]  # fmt: skip


def test_pope_reads_real_rows(shared: Path) -> None:
    found = read(pope.SOURCE, "coco_popular", rows=shared / "data/raw/pope/coco/coco_pope_popular.json.gz")
    assert found.drops == []
    assert [row["key"] for row in found.rows] == [f"coco_popular-{number}" for number in range(1, 3_001)]
    assert Counter(answer for row in found.rows for answer in row["answers"]) == {"yes": 1_500, "no": 1_500}
    assert len({row["images"][0]["path"] for row in found.rows}) == 500
    first = found.rows[0]
    assert first["images"][0]["path"] == "coco/val2014/COCO_val2014_000000310196.jpg"
    assert first["question"] == "Is there a snowboard in the image?"
    assert (first["region_status"], first["split"], first["regions"]) == ("none_needed", "test", [])


@pytest.mark.parametrize(("dataset", "folder"), [("gqa_random", "gqa/images/"), ("aokvqa_popular", "coco/val2014/")])
def test_pope_reads_arrays_too(tmp_path: Path, dataset: str, folder: str) -> None:
    row = {"question_id": 1, "image": "1.jpg", "text": "Is there a cat?", "label": "no"}
    (tmp_path / "x").write_text(json.dumps([row, row | {"label": True}]))
    found = read(pope.SOURCE, dataset, rows=tmp_path / "x")
    assert [row["images"][0]["path"] for row in found.rows] == [folder + "1.jpg"]
    assert (found.rows[0]["dataset"], found.rows[0]["answers"]) == (dataset, ["no"])
    assert details(found) == [(1, "Expected `str`, got `bool` - at `$.label`")]


@pytest.mark.parametrize(
    ("source", "dataset", "path"),
    [
        (viscot.SOURCE, "vsr", "visual_cot/viscot_dataset/vsr_cot_train.jsonl.gz"),
        (llava.SOURCE, "", "llava/llava_v1_5_mix665k.jsonl.gz"),
        (pope.SOURCE, "coco_popular", "pope/coco/coco_pope_popular.json.gz"),
    ],
)
def test_limit_reads_the_first_records_only(shared: Path, source: Source, dataset: str, path: str) -> None:
    found = read(source, dataset, limit=7, rows=shared / "data/raw" / path)
    assert found.row == list(range(7))
    assert found.rows == read(source, dataset, limit=20, rows=shared / "data/raw" / path).rows[:7]
