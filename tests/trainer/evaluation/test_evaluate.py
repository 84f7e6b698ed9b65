"""`python -m trainer.evaluate --predictions`: right answers are right, mistakes in a file are one sentence."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answer_files import GQA, POPE, evaluate, gold, results, written
from helpers import end_to_end
from helpers.chat_server import ChatServer, says, status

from trainer.evaluation import items
from trainer.evaluation.comparing import against, run_names
from trainer.evaluation.metrics import yes_no
from trainer.evaluation.records import RECORD
from trainer.evaluation.results import Drawing
from trainer.generation.dialog import Ended
from vpt_data.corpus.reader import open_corpus


def test_right_answers_are_right_everywhere(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    found = results(corpus, gold(asked), tmp_path)
    assert len(found["splits"]) == 13
    for split in found["splits"].values():
        assert split["figures"]["score"]["value"] == split["figures"]["exact"]["value"] == 1.0
        assert split["figures"]["unparsed"]["value"] == 0.0
        assert split["invalid"] == {}
    assert found["averages"]["score"]["value"] == 1.0


def test_right_regions_get_what_the_grid_allows(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    found = results(corpus, gold(asked), tmp_path)
    regions = [split["regions"] for split in found["splits"].values() if split["regions"]]
    assert len(regions) == 7
    for split in regions:
        assert split["iou_cells"]["value"] == split["iogt_cells"]["value"] == 1.0
        assert split["iou_box"]["value"] == split["gold_iou"]["value"] <= split["best_iou"]["value"]
        assert split["iogt_box"]["value"] == pytest.approx(1.0)
        assert split["iou_box"]["rows"] == split["iou_box_named"]["rows"]


def test_answers_of_other_rows_are_about_chance(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows, answers = gold(asked), [texts[0] for texts in asked.texts("answers")]
    random.Random(0).shuffle(answers)
    found = results(corpus, [row | {"turns": [text]} for row, text in zip(rows, answers, strict=True)], tmp_path)
    assert found["averages"]["score"]["value"] < 0.4
    looks = [split["triggers"] for split in found["splits"].values()]
    assert all(counts["none"] == sum(counts.values()) for split in looks for counts in split.values())
    assert all(split["regions"]["iou_box"]["value"] == 0.0 for split in found["splits"].values() if split["regions"])


def test_what_is_written(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = gold(asked)
    found = results(corpus, rows, tmp_path, "--about", "model=ours", "--about", "pixels=512")
    table = pq.read_table(tmp_path / "out" / "records.parquet")
    assert table.schema.equals(RECORD)
    assert table["id"].to_pylist() == asked.texts("id")
    assert found["items"] == {"rows": len(rows), "images": len(set(asked.texts("image"))), "sha256": asked.sha256()}
    assert found["about"] == {"model": "ours", "pixels": "512"}
    assert found["corpus"]["fingerprint"] == open_corpus(str(corpus)).manifest.fingerprint
    assert found["settings"]["resamples"] == 2000
    assert set(found["metrics"]) == {"anls", "exact", "gqa", "short_or_choice", "token_f1", "vqa", "yes_no"}
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Answers" in page
    assert f"| {POPE.replace('_', chr(92) + '_')} |" in page
    assert asked.sha256() in page
    for split in found["splits"].values():
        for value in (*split["figures"].values(), *split["regions"].values(), *split["trigger_scores"].values()):
            assert set(value) == {"value", "low", "high", "rows", "images"}


def test_the_order_of_a_file_changes_nothing(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = gold(asked)
    first = results(corpus, rows, tmp_path)
    random.Random(1).shuffle(rows)
    assert results(corpus, rows, tmp_path) == first


def test_a_subset_is_named_by_its_hash(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row for row in gold(asked) if row["id"].startswith(POPE)]
    whole = results(corpus, rows, tmp_path, "--split", POPE)
    ids = items.read(open_corpus(str(corpus)), [POPE], 5).texts("id")
    done = evaluate("--predictions", tmp_path / "answers.jsonl", "--data", corpus, "--out", tmp_path / "out",
                    "--split", POPE, "--limit", "5")  # fmt: skip
    sentence = "holds results of other answers or rows; name another folder, or delete this one."
    assert (done.exit_code, done.stderr) == (1, f"Error: {tmp_path / 'out'}: {sentence}\n")
    shutil.rmtree(tmp_path / "out")
    part = results(corpus, rows, tmp_path, "--split", POPE, "--limit", "5")
    assert part["items"]["rows"] == len(ids) == 5
    assert pq.read_table(tmp_path / "out" / "records.parquet")["id"].to_pylist() == ids
    assert part["items"]["sha256"] != whole["items"]["sha256"]
    assert part["settings"]["limit"] == 5


def test_pope_as_its_owners_read_it_and_as_we_do(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    """Half of the answers say nothing that can be read: for POPE's own program, these are all yes."""
    rows = [row for row in gold(asked) if row["id"].startswith(POPE)]
    right = [row["turns"][-1] for row in rows]
    said = [text if number % 2 else "A picture." for number, text in enumerate(right)]
    given = [row | {"turns": [text]} for row, text in zip(rows, said, strict=True)]
    figures = results(corpus, given, tmp_path, "--split", POPE)["splits"][POPE]["figures"]
    unread = sum(text == "A picture." for text in said) / len(said)
    lucky = sum(text == "A picture." and answer == "yes" for text, answer in zip(said, right, strict=True)) / len(said)
    assert figures["unparsed"]["value"] == pytest.approx(unread)
    assert figures["accuracy"]["value"] == pytest.approx(1 - unread)
    assert figures["owners_accuracy"]["value"] == pytest.approx(1 - unread + lucky)
    switched = results(corpus, given, tmp_path, "--split", POPE, "--metric", f"{POPE}=pope_owners")
    assert switched["splits"][POPE]["figures"]["score"]["value"] == figures["owners_accuracy"]["value"]
    assert switched["splits"][POPE]["metric"] == "pope_owners"
    assert switched["splits"][POPE]["owner"] is True
    assert results(corpus, given, tmp_path, "--split", POPE)["splits"][POPE]["owner"] is False
    assert yes_no.said_by_owners(["A picture."]).tolist() == [1]


def test_rows_without_an_answer_score_0(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row | {"ended": Ended.TOKEN_LIMIT} for row in gold(asked)]
    found = results(corpus, rows, tmp_path)
    for split in found["splits"].values():
        assert (split["answered"], split["figures"]["score"]["value"]) == (0, 0.0)
        assert split["ended"] == {"token_limit": split["rows"]}
    figures = found["splits"][POPE]["figures"]
    assert (figures["empty"]["value"], figures["owners_accuracy"]["value"]) == (1.0, 0.0)
    assert figures["owners_yes_ratio"]["value"] == 0.0


def test_an_empty_answer_is_yes_for_the_owners_of_pope(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row | {"turns": [""]} for row in gold(asked) if row["id"].startswith(POPE)]
    figures = results(corpus, rows, tmp_path, "--split", POPE)["splits"][POPE]["figures"]
    assert (figures["empty"]["value"], figures["score"]["value"], figures["owners_yes_ratio"]["value"]) == (
        1.0,
        0.0,
        1.0,
    )


def test_nothing_is_known_of_the_looks_of_an_answer_alone(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    answers = [{"id": row["id"], "answer": row["turns"][-1]} for row in gold(asked)]
    found = results(corpus, answers, tmp_path)["splits"]
    for split in found.values():
        assert split["figures"]["score"]["value"] == 1.0
        assert (split["triggers"], split["trigger_scores"], split["regions"], split["sizes"]) == ({}, {}, {}, {})
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert not [title for title in ("## Looks", "## Regions") if title in page]
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "looks as expected" not in html and "no look" not in html
    assert pq.read_table(tmp_path / "out" / "records.parquet")["triggered"].null_count == len(answers)
    # Where some rows have turns, figures are over those.
    (tmp_path / "some").mkdir()
    some = [*gold(asked)[:1], *answers[1:]]
    name = asked.texts("split")[0]
    split = results(corpus, some, tmp_path / "some")["splits"][name]
    assert sum(sum(row.values()) for row in split["triggers"].values()) == 1
    assert [value["rows"] for value in split["regions"].values()] == [1] * len(split["regions"])


def test_answers_of_a_model_with_another_grid_are_read_on_it(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    """Row by row, whatever the grid of the corpus; the right tokens of a finer one get more of the box."""
    rows = [row for row in gold(asked) if row["id"].startswith(GQA)]
    coarse = results(corpus, rows, tmp_path, "--split", GQA)["splits"][GQA]["regions"]
    finer = [row | {"k": 16} for row in gold(asked, 16) if row["id"].startswith(GQA)]
    (tmp_path / "finer").mkdir()
    found = results(corpus, finer, tmp_path / "finer", "--split", GQA)["splits"][GQA]["regions"]
    assert coarse["iou_cells"]["value"] == found["iou_cells"]["value"] == 1.0
    assert coarse["iou_box"]["value"] < found["iou_box"]["value"] == found["gold_iou"]["value"]


def test_rows_that_could_not_be_asked_are_counted_by_cause(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row for row in gold(asked) if row["id"].startswith(GQA)]
    lost = [{"id": row["id"], "ended": "fault", "fault": f"missing_image: {row['id']}.jpg"} for row in rows[:2]]
    assert results(corpus, lost + rows[2:], tmp_path, "--split", GQA)["splits"][GQA]["faults"] == {"missing_image": 2}
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Rows that could not be asked" in report
    assert "region\\_test | missing\\_image | 2 |" in report


def test_a_run_is_compared_with_another(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = gold(asked)
    worse = [row | {"turns": ["nothing"]} if row["id"].startswith(GQA) else row for row in rows]
    (tmp_path / "other").mkdir()
    results(corpus, worse, tmp_path / "other")
    other = str(tmp_path / "other" / "out")
    found = results(corpus, rows, tmp_path, "--against", other)["against"]["out"]
    assert (found[GQA]["ours"]["value"], found[GQA]["theirs"]["value"]) == (1.0, 0.0)
    assert (found[GQA]["value"], found[POPE]["value"], found[POPE]["p"]) == (1.0, 0.0, 1.0)
    # The sample has few images, and thirteen tests at once ask for more.
    assert found[GQA]["p"] < 0.05 < found[GQA]["p_holm"]
    shutil.rmtree(tmp_path / "out")
    assert results(corpus, rows, tmp_path, "--split", GQA, "--against", other)["against"]["out"][GQA]["p_holm"] < 0.05

    def verdict(split: str) -> str:
        done = evaluate("--predictions", tmp_path / "answers.jsonl", "--data", corpus, "--out", tmp_path / split,
                        "--split", split, "--against", other)  # fmt: skip
        lines = done.stdout.split("Differences from other runs")[1].splitlines()
        return next(line.split("  ")[-1].strip() for line in lines if line.startswith(f"out        {split}"))

    assert (verdict(GQA), verdict(POPE)) == ("higher", "no difference found")


def test_several_runs_stand_side_by_side(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    """Two of them have one folder name; p is adjusted for the tests against all of them."""
    rows = [row for row in gold(asked) if row["id"].startswith(GQA)]
    places = [tmp_path / name for name in ("first", "second")]
    for wrong, place in zip((len(rows), 3), places, strict=True):
        place.mkdir()
        worse = [row | {"turns": ["nothing"]} for row in rows[:wrong]] + rows[wrong:]
        results(corpus, worse, place, "--split", GQA)
    assert run_names([*(place / "out" for place in places), places[0], places[0]]) == {
        "first/out": places[0] / "out", "second/out": places[1] / "out", "first": places[0],
    }  # fmt: skip
    options = [text for place in places for text in ("--against", str(place / "out"))]
    found = results(corpus, rows, tmp_path, "--split", GQA, *options)["against"]
    assert list(found) == ["first/out", "second/out"]
    one, other = (runs[GQA] for runs in found.values())
    assert (one["value"], one["theirs"]["value"]) == (1.0, 0.0)
    assert other["value"] == pytest.approx(3 / len(rows)) == 1 - other["theirs"]["value"]
    smaller, larger = sorted((one, other), key=lambda each: each["p"])
    assert smaller["p_holm"] == 2 * smaller["p"] and larger["p_holm"] >= larger["p"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| split | rows | this run | first/out | second/out |" in text


def test_only_the_same_questions_are_compared(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    found = results(corpus, [row for row in gold(asked) if row["id"].startswith(POPE)], tmp_path, "--split", POPE)
    mine = pq.read_table(tmp_path / "out" / "records.parquet")
    texts = ["Another question?", *mine["question"].to_pylist()[1:]]
    changed = mine.set_column(mine.schema.get_field_index("question"), RECORD.field("question"), pa.array(texts))
    assert against(mine, {"other": changed}, Drawing())["other"][POPE].rows == found["items"]["rows"] - 1
    (tmp_path / "other").mkdir()
    done = evaluate("--predictions", written(tmp_path / "other", gold(asked)), "--data", corpus, "--split", GQA,
                    "--against", tmp_path / "out", "--out", tmp_path / "other" / "out")  # fmt: skip
    assert done.exit_code == 2
    assert done.stderr == (
        "Error: --against out: no row of this run has the id, question, right answers and metric of a row that is "
        "evaluated now; name the results of the same corpus.\n"
    )


def test_a_split_that_is_named_twice_is_asked_once(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    found = results(corpus, gold(asked), tmp_path, "--split", GQA, "--split", GQA)
    assert found["items"]["rows"] == sum(name == GQA for name in asked.texts("split"))


def test_results_are_not_replaced_by_those_of_others(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows, out = gold(asked), tmp_path / "out"
    found = results(corpus, rows, tmp_path)
    file = written(tmp_path, [rows[0] | {"turns": ["nothing"]}, *rows[1:]])

    def error(*more: str | Path) -> str:
        done = evaluate("--predictions", file, "--data", corpus, "--out", out, *more)
        assert done.exit_code in (1, 2)
        assert json.loads((out / "results.json").read_text(encoding="utf-8")) == found
        return done.stderr

    refused = f"Error: {out}: holds results of other answers or rows; name another folder, or delete this one.\n"
    assert error() == refused
    written(tmp_path, rows)
    assert error("--against", out) == (
        f"Error: --against {out}: is also the folder to write; name another one with --out.\n"
    )
    (out / "asking.json").write_text("{}")
    assert error() == f"Error: {out}: holds the answers of a model that was asked; name another folder.\n"


@pytest.mark.parametrize("left", [["report.md", "records.parquet"], ["records.parquet.0a1b2c3d.tmp"]])
def test_a_process_that_died_while_it_wrote_blocks_nothing(
    corpus: Path, asked: items.Items, tmp_path: Path, left: list[str]
) -> None:
    found = results(corpus, gold(asked), tmp_path)
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    for name in left:
        (tmp_path / "out" / name).write_bytes(b"PAR1")
    assert results(corpus, gold(asked), tmp_path) == found


def test_a_judge_stands_beside_the_metric(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row | {"ended": "token_limit"} if row["id"].startswith(GQA) else row for row in gold(asked)]
    found = results(corpus, rows, tmp_path, "--judge", "offline", "--second-judge", "offline")
    shown = min(200, sum(not row["id"].startswith(GQA) for row in rows))
    assert found["judge"] == {
        "model": "offline", "prompt": "vpt-2025-03", "as_published": False, "second": "offline",
        "agreement": {"items": shown, "same": 1.0, "same_side": 1.0, "kappa": None, "difference": 0.0},
    }  # fmt: skip
    assert found["splits"][POPE]["figures"]["judge"]["value"] == 1.0
    assert found["splits"][GQA]["figures"]["judge"]["value"] == 0.0
    assert found["averages"]["judge"]["value"] == pytest.approx(12 / 13)


def test_the_second_judge_sees_rows_by_their_ids(
    corpus: Path, asked: items.Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a model answers, the rows are the same."""
    drawn: list[list[str]] = []
    monkeypatch.setattr("trainer.evaluation.scoring.sample", lambda ids: [drawn.append(ids) or 0])
    results(corpus, gold(asked), tmp_path, "--split", GQA, "--judge", "offline", "--second-judge", "offline")
    assert drawn == [[name for name in asked.texts("id") if name.startswith(GQA)]]


def test_a_judge_behind_a_server(
    corpus: Path, asked: items.Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third reply is prose: these rows have no score of the judge, and the report says how many there are."""
    rows = [row for row in gold(asked) if row["id"].startswith(POPE)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    distinct = len({(text, row["turns"][-1]) for text, row in zip(
        [text for text, name in zip(asked.texts("question"), asked.texts("id"), strict=True) if name.startswith(POPE)],
        rows, strict=True)})  # fmt: skip
    acts = [says("I agree." if number % 3 == 0 else "score: 0.5") for number in range(distinct)]
    with ChatServer(*acts, always=status(500)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        found = results(corpus, rows, tmp_path, "--split", POPE, "--judge", "model")
        # All replies are in the cache now, so that the server, which has nothing more to say, is not asked.
        assert results(corpus, rows, tmp_path, "--split", POPE, "--judge", "model") == found
        assert len(server.asked) == distinct
    split = found["splits"][POPE]
    assert split["figures"]["judge"]["value"] == 0.5
    assert 0 < split["judge_faults"] == split["rows"] - split["figures"]["judge"]["rows"]
    faults = pq.read_table(tmp_path / "out" / "records.parquet")["judge_fault"].drop_null().to_pylist()
    assert faults == ["no score in 0..1: 'I agree.'"] * split["judge_faults"]


def test_real_rows_load_score_and_report(shared: Path, tmp_path: Path) -> None:
    """DocVQA 888, GQA 978, CUB 492, POPE 3,000: right answers in, all of them right."""
    corpus = end_to_end.build("vpt_eval", shared / "data" / "raw", tmp_path / "corpus")
    asked = items.read(open_corpus(str(corpus)))
    found = results(corpus, gold(asked), tmp_path)["splits"]
    sizes = {name: split["rows"] for name, split in found.items() if split["rows"] > 100}
    assert sizes == {
        "CUB_Birds_action_test": 492, "DocVQA_region_test": 888, "GQA_region_test": 978, "POPE_action_test": 3000,
    }  # fmt: skip
    assert {split["figures"]["score"]["value"] for split in found.values()} == {1.0}
    figures = found[POPE]["figures"]
    assert {figures[name]["value"] for name in ("accuracy", "f1", "owners_accuracy", "owners_f1")} == {1.0}
    # Most boxes of DocVQA are smaller than a cell, so that no region can fit them well.
    assert found["DocVQA_region_test"]["regions"]["best_iou"]["value"] == pytest.approx(0.246, abs=0.001)
    assert found["DocVQA_region_test"]["regions"]["iou_box"]["value"] == pytest.approx(0.195, abs=0.001)
