"""Evaluation splits have the sizes that their owners publish; a row says itself what cannot be used of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import end_to_end
from helpers.end_to_end import own_take

from vpt_data.cli.main import main
from vpt_data.corpus.manifest import read

PUBLISHED = {
    "cub": ("CUB_Birds_action_test", 492),
    "docvqa": ("DocVQA_region_test", 888),
    "gqa": ("GQA_region_test", 978),
}
ASKED = (
    "<image>\n{} Please provide the bounding box coordinate of the region that can help you answer the question better."
)


def benchmark(raw: Path, dataset: str, rows: list[tuple[int, str, str, str, list[int]]]) -> None:
    """Both files of a benchmark; each row is (question_id, image, question, answer, box) on 100x80 pixels."""
    asked, answered = [], []
    for number, image, question, answer, box in rows:
        path = f"cot/{dataset}/{image}"
        asked.append(
            {"img_path": path, "expression": question, "bbox": box, "width": 100, "height": 80}
            | {"question_id": number, "split": "val"}
        )
        talk = [ASKED.format(question), "[0, 0, 1, 1]", "<image>", answer]
        answered.append({"question_id": number, "image": [path], "conversations": [{"value": text} for text in talk]})
    folder = raw / "visual_cot/viscot_benchmark"
    (folder / "benchmark_det").mkdir(parents=True, exist_ok=True)
    (folder / "benchmark").mkdir(exist_ok=True)
    (folder / f"benchmark_det/{dataset}.jsonl").write_text(end_to_end.lines(asked))
    (folder / f"benchmark/{dataset}.json").write_text(json.dumps(answered))


def dude(number: int, *, outside: bool, answer: str = "It is.") -> tuple[int, str, str, str, list[int]]:
    box = [200, 10, 300, 40] if outside else [10, 10, 50, 40]
    return number, f"{number % 492}.jpg", f"What is {number}?", answer, box


def test_dude_has_603_rows_and_openimages_945(tmp_path: Path) -> None:
    """DUDE: 22 boxes are wholly outside the page. OpenImages: the same question twice under two numbers."""
    raw = tmp_path / "raw"
    benchmark(
        raw,
        "dude",
        [dude(number, outside=number < 22, answer="" if number == 50 else "It is.") for number in range(603)],
    )
    twice = [(number, f"{number % 889}.jpg", f"What is {number % 940}?", "a", [1, 1, 9, 9]) for number in range(945)]
    benchmark(raw, "openimages", [(number, f"{number % 940}.jpg", *rest[1:]) for number, *rest in twice])
    corpus = end_to_end.build("vpt_eval", raw, tmp_path / "corpus")
    found = end_to_end.account(corpus)
    assert (found["DUDE_region_test"].kept, found["OI_region_test"].kept) == (603, 945)
    assert found["DUDE_region_test"].dropped == found["OI_region_test"].dropped == {}
    assert {kind: found["DUDE_region_test"].repaired[kind] for kind in ("no_region", "empty_answer")} == {
        "no_region": 22, "empty_answer": 1,
    }  # fmt: skip
    rows = [row for row in end_to_end.rows(corpus) if row["take"] == "DUDE_region_test"]
    assert sum(row["region_status"] == "unusable" for row in rows) == 22
    assert all(row["regions"] for row in rows), "boxes stay as given"
    [empty] = [row for row in rows if row["answers"] == [""]]
    assert empty["question"] == "What is 50?" and empty["messages"][-1]["content"] == ""
    checked = CliRunner().invoke(main, ["check", str(corpus)])
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize("dataset", list(PUBLISHED))
def test_real_benchmark_files_give_their_published_sizes(shared: Path, tmp_path: Path, dataset: str) -> None:
    take, size = PUBLISHED[dataset]
    corpus = end_to_end.build("vpt_eval", shared / "data/raw", tmp_path / "corpus")
    made = {part.take: part for part in read(corpus).components}
    assert (made[take].read, made[take].kept, made[take].expected) == (size, size, size)


TRAIN, TEST = own_take("train"), own_take("test", template="plain", expected="region", split="test")
BOTH = 'name = "both"\nshards = 1\n'


def test_training_takes_still_drop_what_evaluation_takes_keep(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = end_to_end.own_rows(4)
    records[1]["box"] = [700, 20, 800, 400]
    records[2]["answer"] = ""
    records[3] |= {"box": None}
    corpus = end_to_end.build(
        end_to_end.recipe_file(tmp_path, BOTH + TRAIN + TEST),
        end_to_end.own_root(tmp_path / "raw", records),
        tmp_path / "out",
    )
    found = end_to_end.account(corpus)
    assert (found["train"].kept, found["train"].dropped) == (1, {"empty_answer": 1, "no_region_left": 2})
    assert (found["test"].kept, found["test"].dropped) == (3, {"claimed": 1})
    assert found["test"].repaired == {"empty_answer": 1, "no_region": 2}
    status = {row["question"]: row["region_status"] for row in end_to_end.rows(corpus, "test")}
    assert status == {"What is number 1?": "unusable", "What is number 2?": "given", "What is number 3?": "unknown"}


def build_with_ids(folder: Path, takes: str, records: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    raw = end_to_end.own_root(folder / "raw", records)
    recipe = BOTH + takes.replace("{ box", '{ id = "id", box')
    return end_to_end.build(end_to_end.recipe_file(folder, recipe), raw, folder / "out")


def test_equal_rows_under_different_ids_are_two_rows_of_an_evaluation_set(tmp_path: Path) -> None:
    """Row 2 repeats row 0 under another id, row 3 repeats row 1 with its id, row 4 is another one under that id."""
    first, second, third = end_to_end.own_rows(3)
    rows = [(first, 10), (second, 11), (first, 12), (second, 11), (third, 11)]
    records = [record | {"id": number} for record, number in rows]
    test = build_with_ids(tmp_path / "test", TEST, records)
    assert end_to_end.account(test)["test"].dropped == {"duplicate": 1}
    kept = {(row["question"], row["source_id"]): row["id"] for row in end_to_end.rows(test)}
    names = [record["question"] for record in (first, second, third)]
    assert set(kept) == {(names[0], "10"), (names[0], "12"), (names[1], "11"), (names[2], "11")}
    assert all(row_id.startswith("test/") and row_id.endswith(f"-{number}") for (_, number), row_id in kept.items())
    assert CliRunner().invoke(main, ["check", str(test)]).exit_code == 0
    turned = build_with_ids(tmp_path / "turned", TEST, records[::-1])
    assert read(turned).fingerprint == read(test).fingerprint
    train = build_with_ids(tmp_path / "train", TRAIN, records)
    assert end_to_end.account(train)["train"].dropped == {"duplicate": 2}


def test_an_evaluation_row_is_not_trained_on_under_another_id(tmp_path: Path) -> None:
    """The test picks first, the training take gets the rest of the same file, where a row of the test comes again."""
    [row] = end_to_end.own_rows(1)
    corpus = build_with_ids(tmp_path / "both", TEST + "count = 1\n" + TRAIN, [row | {"id": 10}, row | {"id": 12}])
    found = end_to_end.account(corpus)
    assert (found["test"].kept, found["train"].kept) == (1, 0)
    assert found["test"].dropped == {"duplicate": 1} and found["train"].dropped == {"claimed": 1}
