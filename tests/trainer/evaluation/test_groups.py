"""Rows that both runs score are compared; a take has figures of its own, also where a split has several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answer_files import GQA, POPE, gold, results
from helpers import end_to_end

from trainer.evaluation import arms, items, report
from trainer.evaluation import results as results_of
from trainer.evaluation.comparing import against
from trainer.evaluation.records import RECORD, groups
from trainer.evaluation.results import Drawing, Results
from vpt_data.corpus.reader import open_corpus
from vpt_data.dialogue.tokens import grid


def table_of(splits: list[str], scores: list[float | None], **more: list[Any]) -> pa.Table:
    """Records with these scores; each row has an image of its own and is in a take with the name of its split."""
    names = [f"{number}" for number in range(len(splits))]
    columns: dict[str, list[Any]] = {"id": names, "image": names, "take": splits, "split": splits}
    columns |= {"metric": ["gqa"] * len(splits), "score": scores} | more
    return pa.table([pa.array(columns.get(one.name) or [None] * len(splits), one.type) for one in RECORD], RECORD)


def test_only_rows_that_both_runs_score_are_compared() -> None:
    ours = table_of(["a"] * 6, [1.0, 0.0, 1.0, 0.0, None, 1.0], intervened=[1] * 6, answer=["x"] * 6)
    theirs = table_of(["a"] * 6, [1.0, 0.0, 1.0, None, 0.0, 0.0], intervened=[0] * 6, answer=["x"] * 6)
    of_run = against(ours, {"other": theirs}, Drawing())["other"]["a"]
    of_arm = arms.compare(theirs, {"arm": ours}, Drawing())["arm"]["a"].difference
    for one in (of_run, of_arm):
        assert one is not None and one.value == pytest.approx(0.25)
        assert (one.ours.value, one.theirs.value, one.rows, one.images) == (0.75, 0.5, 4, 4)
    none = against(ours, {"other": table_of(["a"] * 6, [None] * 6)}, Drawing())["other"]["a"]
    assert (none.value, none.p, none.rows) == (None, None, 0)


def test_a_row_that_is_left_out_makes_no_difference(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    """The same answers, once as the published program reads them: it leaves out the row whose crop failed."""
    rows = gold(asked)
    next(row for row in rows if row["id"].startswith(GQA))["turns"] = [f"{grid.START}<|x_1|><|x_3|>{grid.END}"]
    (tmp_path / "paper").mkdir()
    results(corpus, rows, tmp_path / "paper", "--protocol", "paper")
    found = results(corpus, rows, tmp_path, "--against", str(tmp_path / "paper" / "out"))
    one = found["against"]["out"][GQA]
    assert (one["value"], one["p"], one["rows"]) == (0.0, 1.0, found["splits"][GQA]["rows"] - 1)


@pytest.mark.parametrize("runs", [1, 3])
def test_a_difference_is_found_among_hundreds_of_tests(runs: int) -> None:
    """With 100 draws no p is below 1 / 101, which is far too much for 180 tests."""
    splits = [f"split {number // 20}" for number in range(1200)]
    ours, theirs = table_of(splits, [1.0] * 1200), table_of(splits, [0.0] * 20 + [1.0] * 1180)
    found = against(ours, {f"run {number}": theirs for number in range(runs)}, Drawing(100))
    for splits_of_run in found.values():
        assert splits_of_run["split 0"].p_holm is not None and splits_of_run["split 0"].p_holm < 0.05
        assert splits_of_run["split 1"].p_holm == 1.0


def test_takes_of_a_split_are_scored_apart(sample_root: Path, tmp_path: Path) -> None:
    one_split = end_to_end.build("sample_eval", sample_root, tmp_path / "corpus", f"take.{GQA}.split={POPE}")
    asked = items.read(open_corpus(str(one_split)))
    rows = [row | {"turns": ["nothing"]} if row["id"].startswith(GQA) else row for row in gold(asked)]
    (tmp_path / "gold").mkdir()
    results(one_split, gold(asked), tmp_path / "gold")
    found = results(one_split, rows, tmp_path, "--against", str(tmp_path / "gold" / "out"), "--published",
                    "vpt:2b-dino-512")  # fmt: skip
    names = (f"{POPE}/{GQA}", f"{POPE}/{POPE}")
    assert len(found["splits"]) == 13 and {*names} < found["splits"].keys() and POPE not in found["splits"]
    apart = [found["splits"][name] for name in names]
    assert [(one["metric"], one["owner"], one["figures"]["score"]["value"]) for one in apart] == [
        ("gqa", True, 0.0), ("yes_no", False, 1.0),
    ]  # fmt: skip
    assert "owners_f1" in apart[1]["figures"] and "f1" not in apart[0]["figures"]
    assert [found["against"]["out"][name]["value"] for name in names] == [-1.0, 0.0]
    assert found["averages"]["score"]["value"] == pytest.approx(12 / 13)
    assert found["published"]["splits"][names[0]]["paper"] is not None
    records = pq.read_table(tmp_path / "out" / "records.parquet")
    by_arm = arms.compare(records, {"arm": records}, Drawing())["arm"]
    assert list(by_arm) == list(found["splits"]) == list(groups(records))


def test_figures_of_the_parts_of_pope_are_averaged() -> None:
    parts = ["POPE_random_action_test"] * 4 + ["POPE_popular_action_test"] * 4
    said, right = ["yes", "yes", "no", "no", "yes", "yes", "yes", "no"], ["yes", "no"] * 4
    scores: list[float | None] = [float(a == b) for a, b in zip(said, right, strict=True)]
    looks = {"expected": ["reencode"] * 8, "triggered": ["none"] * 8, "invalid": [[]] * 8, "metric": ["yes_no"] * 8}
    table = table_of(parts, scores, said=said, answers=[[one] for one in right], answer=said, **looks)
    splits, averages = results_of.splits(table, Drawing()), results_of.averages(table, Drawing())
    for name in ("precision", "recall", "f1", "yes_ratio"):
        one, other = (split.figures[name].value for split in splits.values())
        assert one is not None and other is not None
        assert averages[f"pope_{name}"].value == pytest.approx((one + other) / 2)
    assert averages["pope_yes_ratio"].value == 0.625 and averages["pope_f1"].rows == 8
    assert not {"pope_f1", "pope"} & results_of.averages(table.slice(0, 4), Drawing()).keys()
    found = Results(
        schema_version=2, versions={}, corpus={}, items={}, answers="", settings={}, about={}, metrics={},
        splits=splits, averages=averages,
    )  # fmt: skip
    [section] = [one for one in report.sections(found) if one.name == "yes_no"]
    assert section.rows[-1][:6] == ["mean of the POPE parts", "8", "0.625", "0.583", "0.750", "0.650"]
