"""`--circular`: a question is right only if it is right with its options in every rotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answer_files import evaluate, written
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import arms, items
from trainer.evaluation.asking.questions import questions
from trainer.evaluation.metrics import choices
from trainer.evaluation.records import RECORD, circular
from trainer.evaluation.results import Drawing
from vpt_data.corpus.reader import open_corpus

SPLIT = "LLaVA_COCO_single_action_test"

WORDS = st.lists(st.sampled_from(["vase", "clock", "A cup", "C. 3", "a\\b", "stop sign"]), min_size=2, unique=True)


@given(WORDS, st.data())
def test_the_right_letter_moves_with_its_text(words: list[str], data: st.DataObject) -> None:
    lines = [f"{chr(ord('A') + place)}. {word}" for place, word in enumerate(words)]
    question = "\n".join(["What is it?", *lines, "Answer with the letter."])
    right = data.draw(st.integers(0, len(words) - 1))
    found = choices.letters(question, f"({chr(ord('A') + right)}).")
    assert sorted(found) == [chr(ord("A") + place) for place in range(len(words))]
    for turn, letter in enumerate(found):
        moved = choices.rotated(question, turn)
        assert choices.options(moved)[letter] == words[right]
        assert sorted(choices.options(moved).values()) == sorted(words)
        assert (moved.splitlines()[0], moved.splitlines()[-1]) == ("What is it?", "Answer with the letter.")
    assert choices.rotated(question, len(words)) == choices.rotated(question, 0) == question
    assert choices.letters(question, "Z") == choices.letters("What is it?", "A") == []


@pytest.fixture(scope="module")
def rotated(asked: items.Items) -> items.Items:
    return asked.circular()


def test_items_and_questions_are_rotated_alike(corpus: Path, asked: items.Items, rotated: items.Items) -> None:
    with_options = [name for name, text in zip(asked.texts("id"), asked.texts("question"), strict=True)
                    if name.startswith(SPLIT) and choices.options(text)]  # fmt: skip
    plain = [name for name in rotated.texts("id") if "#" not in name]
    assert sorted(plain + with_options) == sorted(asked.texts("id"))
    by_id = dict(zip(rotated.texts("id"), rotated.texts("question"), strict=True))
    wanted = rotated.by_split([name for name in by_id if name.startswith(SPLIT)])
    rows = {row["id"]: row for row in questions(open_corpus(str(corpus)), wanted, "prompted")}
    assert set(rows) == wanted[SPLIT]
    for name, row in rows.items():
        assert row["messages"][-1]["content"].count(by_id[name]) == 1
    assert rotated.sha256() != asked.sha256()


def results(corpus: Path, rows: list[dict[str, Any]], folder: Path, *more: str) -> dict[str, Any]:
    folder.mkdir()
    given = ["--predictions", written(folder, rows), "--data", corpus, "--out", folder / "out", "--split", SPLIT]
    done = evaluate(*given, "--json", *more)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_model_that_likes_a_letter_is_right_by_chance_and_wrong_in_the_circle(
    corpus: Path, asked: items.Items, rotated: items.Items, tmp_path: Path
) -> None:
    columns = (asked.texts(name) for name in ("split", "question", "answers"))
    letter = next(right[0] for split, text, right in zip(*columns, strict=True)
                  if split == SPLIT and choices.options(text))  # fmt: skip

    def said(of: items.Items, *, knows: bool) -> list[dict[str, Any]]:
        """The right answers, or one letter for each question with options."""
        rows = zip(of.texts("id"), of.texts("question"), of.texts("answers"), strict=True)
        return [
            {"id": name, "answer": right[0] if knows or not choices.options(question) else letter}
            for name, question, right in rows
            if name.startswith(SPLIT)
        ]

    right = results(corpus, said(rotated, knows=True), tmp_path / "right", "--circular")
    liked = results(corpus, said(rotated, knows=False), tmp_path / "liked", "--circular")
    plain = results(corpus, said(asked, knows=False), tmp_path / "plain")
    scores = [found["splits"][SPLIT]["figures"]["score"] for found in (right, liked, plain)]
    assert scores[0]["value"] == 1.0
    assert scores[1]["value"] < scores[2]["value"], "one question has this letter by chance"
    assert {score["rows"] for score in scores} == {plain["splits"][SPLIT]["rows"]}
    assert (right["settings"]["circular"], plain["settings"]["circular"]) == (True, False)
    records = pq.read_table(tmp_path / "liked" / "out" / "records.parquet").to_pylist()
    circles = [row for row in records if row["id"].endswith("#circular")]
    assert circles and all(row["score"] == 0.0 and row["turns"] == [letter] * 4 for row in circles)
    assert all(row["score"] == 1.0 for row in records if row not in circles)


def test_the_file_of_a_whole_corpus_can_be_scored_in_part(
    corpus: Path, asked: items.Items, rotated: items.Items, tmp_path: Path
) -> None:
    columns = (rotated.texts(name) for name in ("id", "answers"))
    file = written(tmp_path, [{"id": name, "answer": right[0]} for name, right in zip(*columns, strict=True)])
    questions = [text for text, split in zip(*map(asked.texts, ("question", "split")), strict=True) if split == SPLIT]
    limit = 1 + next(place for place, text in enumerate(questions) if choices.options(text))
    parts = (["--circular", "--limit", f"{limit}"], ["--circular", "--split", SPLIT], ["--split", "GQA_region_test"])
    for number, part in enumerate(parts):
        done = evaluate("--predictions", file, "--data", corpus, "--out", tmp_path / f"{number}", "--json", *part)
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["averages"].get("score", {"value": 1.0})["value"] == 1.0


def rotations(*answers: str | None, **more: list[Any]) -> pa.Table:
    """Records of the rotations of a question, with these answers, and of a row without options."""
    count, options = len(answers), {"id": [*(items.rotation("a", turn) for turn in range(len(answers))), "b"]}
    columns: dict[str, list[Any]] = {**options, "answer": [*answers, "yes"], "turns": [[one or ""] for one in answers]}
    columns["turns"].append(["yes"])
    columns |= {"take": ["s"] * (count + 1), "split": ["s"] * (count + 1), "metric": ["choice"] * (count + 1)}
    columns |= {"image": columns["id"], "score": [1.0] * (count + 1), "intervened": [1] * (count + 1)}
    columns |= {name: [*values, values[0]] for name, values in more.items()}
    return pa.table([pa.array(columns.get(one.name) or [None] * (count + 1), one.type) for one in RECORD], RECORD)


def test_a_record_of_all_rotations_has_what_came_of_each() -> None:
    faults, ends = [None, "late", "busy"], ["end_of_turn", "fault", "cap"]
    table = rotations("A", None, "C", fault=faults, ended=ends, tokens=[1, 2, 3], seconds=[0.5, 0.25, 0.25],
                      invalid=[[], ["region_reversed"], ["region_missing"]], control_norms=[[1.0], [2.0], [3.0]],
                      logprob=[-1.0, None, -1.0])  # fmt: skip
    one, plain = circular(table).to_pylist()
    assert (one["id"], one["turns"], one["answer"]) == ("a#circular", ["A", "", "C"], None)
    assert (one["fault"], one["ended"], one["tokens"], one["seconds"]) == ("late", "fault", 6, 1.0)
    assert (one["invalid"], one["control_norms"]) == (["region_reversed", "region_missing"], [1.0, 2.0, 3.0])
    assert one["logprob"] is None
    assert plain == table.to_pylist()[-1], "a row without options stays as it is"
    assert circular(rotations("A", "C"))["answer"].to_pylist() == ["A | C", "yes"]
    assert circular(rotations("A", "", "C"))["answer"].to_pylist() == ["", "yes"]


def test_an_answer_that_is_another_one_in_any_rotation_is_another_one() -> None:
    own, arm = circular(rotations("A", "B", "C")), circular(rotations("A", "B", "A"))
    others = arms.compare(own, {"arm": arm}, Drawing())["arm"]["s"].other_answers
    assert others is not None and (others.value, others.rows) == (0.5, 2)


def test_wrong_usage(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [{"id": name, "answer": "yes"} for name in asked.texts("id")]
    given = ["--predictions", written(tmp_path, rows), "--data", corpus, "--circular", "--out", tmp_path / "out"]
    done = evaluate(*given, "--split", "GQA_region_test")
    assert (done.exit_code, done.stderr) == (
        2,
        "Error: --circular: no question has options, one a line as `A. vase`; leave it out.\n",
    )
    done = evaluate(*given, "--judge", "offline")
    assert (done.exit_code, done.stderr) == (
        2,
        "Error: --circular compares letters, and a judge texts; leave out --judge.\n",
    )
