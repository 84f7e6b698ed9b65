"""Which rows a page shows: by hash, by condition, by id, and those with the worst problems of the whole corpus."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers import end_to_end, small_corpora

from vpt_data.corpus.reader import open_corpus
from vpt_data.errors import UsageError
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.check import check
from vpt_data.inspect.view import index
from vpt_data.inspect.view.choose import Choice, choose

Row = dict[str, Any]


@pytest.fixture(scope="module")
def lines(reference_corpus: Path) -> pa.Table:
    return index.read(open_corpus(reference_corpus))


def kinds(lines: pa.Table) -> Counter[str]:
    """How many rows have each problem."""
    return Counter(kind for bits in lines["problems"].to_pylist() for kind in index.names(bits, index.KINDS))


def test_the_index_has_a_line_for_each_row_in_order(reference_corpus: Path, lines: pa.Table) -> None:
    stored = [(n, row, id_) for n, ids in enumerate(end_to_end.ids_by_shard(reference_corpus).values())
              for row, id_ in enumerate(ids)]  # fmt: skip
    by_name = sorted(zip(*(lines[name].to_pylist() for name in ("shard", "row", "id")), strict=True))
    assert by_name == sorted(stored)
    row = next(row for row in end_to_end.rows(reference_corpus) if row["looks"] == ["region"])
    line = lines.filter(pc.equal(lines["id"], row["id"])).to_pylist()[0]
    assert (line["take"], line["looks"], line["expected"]) == (row["take"], "region", None)
    assert line["text"] == len(row["question"]) + sum(map(len, row["answers"]))
    (box,), info = [region["box"] for region in row["regions"]], row["image_info"][0]
    share = (box[2] - box[0]) * (box[3] - box[1]) / info["width"] / info["height"]
    assert line["box_area"] == pytest.approx(share, rel=1e-5)
    assert line["cells"] == pytest.approx(share * row["k"] ** 2, rel=1e-5)


def test_repairs_are_those_of_the_origins(reference_corpus: Path, lines: pa.Table) -> None:
    repaired = {row["id"]: row["repaired"] for row in end_to_end.origins(reference_corpus)}
    found = zip(lines["id"].to_pylist(), lines["repaired"].to_pylist(), strict=True)
    assert {id_: index.names(bits, index.REPAIRS) for id_, bits in found} == repaired
    assert any(repaired.values())


def test_the_same_rows_for_the_same_corpus(lines: pa.Table) -> None:
    chosen = choose(lines, Choice(50), "rows of it")
    turned = lines.take(pa.array(np.arange(len(lines))[::-1].copy()))
    again = choose(turned, Choice(50), "rows of it")
    assert set(turned["id"].take(pa.array(again.lines)).to_pylist()) == set(
        lines["id"].take(pa.array(chosen.lines)).to_pylist()
    )
    assert len(chosen.lines) == 50 and list(chosen.lines) == sorted(set(chosen.lines.tolist()))
    assert chosen.sentence == (
        f"50 of {len(lines):,} rows of it: 45 by the hash of their id and the 5 with the worst problems."
    )


def test_rows_whose_image_is_there_come_first(lines: pa.Table) -> None:
    there = np.zeros(len(lines), bool)
    there[5::9] = True
    at = lines.schema.get_field_index("pictured")
    some = lines.set_column(at, lines.schema.field(at), pa.array(there))
    chosen = choose(some, Choice(30), "rows")
    assert there[chosen.lines].sum() >= 27
    head = (
        f"30 of {len(lines)} rows: 27 by the hash of their id (those first whose image is there, {there.sum()} of all)"
    )
    assert chosen.sentence == f"{head} and the 3 with the worst problems."


def test_the_index_says_which_images_are_there(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    (tmp_path / "raw/gqa/images/000000000001.jpg").unlink()
    found = index.read(open_corpus(corpus), raw=ImageRoot(tmp_path / "raw")).to_pylist()
    gone = {row["id"] for row in small_corpora.rows_of(corpus) if row["take"] == "gqa"
            and row["images"][0]["path"].endswith("01.jpg")}  # fmt: skip
    assert {line["id"] for line in found if not line["pictured"]} == gone != set()


def test_a_small_corpus_is_shown_whole(lines: pa.Table) -> None:
    chosen = choose(lines, Choice(1000), "rows of it")
    assert (len(chosen.lines), chosen.sentence) == (len(lines), f"All {len(lines)} rows of it.")


def test_each_kind_of_problem_gets_its_places(lines: pa.Table) -> None:
    """Half of the rows have small boxes; a single row that breaks a rule is shown all the same."""
    problems = np.full(len(lines), 1 << index.KINDS.index("small"), np.uint64)
    problems[7] = 1 << index.KINDS.index("roles")
    at = lines.schema.get_field_index("problems")
    many = lines.set_column(at, lines.schema.field(at), pa.array(problems))
    assert 7 in choose(many, Choice(20), "rows").lines


def test_only_rows_with_problems(lines: pa.Table) -> None:
    chosen = choose(lines, Choice(30, problems=True), "rows of it")
    severity = lines["severity"].take(pa.array(chosen.lines)).to_pylist()
    assert min(severity) > 0
    total = sum(value > 0 for value in lines["severity"].to_pylist())
    assert (
        chosen.sentence == f"The {len(severity)} worst of the {total} rows with problems, of {len(lines)} rows of it."
    )


def test_rows_by_id(lines: pa.Table) -> None:
    ids = lines["id"].to_pylist()
    chosen = choose(lines, Choice(ids=[ids[9], ids[3], ids[9]]), "rows")
    assert (chosen.lines.tolist(), chosen.sentence) == ([3, 9], "2 rows by id.")
    with pytest.raises(UsageError) as error:
        choose(lines, Choice(ids=[ids[3], "gqa/none"]), "rows")
    assert str(error.value) == "No row has the id 'gqa/none'; give ids as the column `id` has them, such as TAKE/KEY."


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("take = 'gqa'", lambda row: row["take"] == "gqa"),
        ("list_contains(looks, 'region') -- a remark", lambda row: "region" in row["looks"]),
        (
            "len(regions) > 1 OR question LIKE '%sign%'",
            lambda row: len(row["regions"]) > 1 or "sign" in row["question"],
        ),
        ("image_info[1].width > 600", lambda row: any((info["width"] or 0) > 600 for info in row["image_info"][:1])),
    ],
)
def test_a_condition_is_sql(reference_corpus: Path, text: str, due: Callable[[Row], bool]) -> None:
    found = index.read(open_corpus(reference_corpus), index.condition(text))
    wanted = {row["id"] for row in end_to_end.rows(reference_corpus) if due(row)}
    assert set(found["id"].to_pylist()) == wanted != set()


def test_a_condition_knows_numbers_problems_and_repairs(reference_corpus: Path, lines: pa.Table) -> None:
    opened = open_corpus(reference_corpus)
    assert len(index.read(opened, index.condition("iou < .1"))) == kinds(lines)["low_iou"]
    assert len(index.read(opened, index.condition("list_contains(problems, 'small')"))) == kinds(lines)["small"]
    clipped = [row for row in end_to_end.origins(reference_corpus) if "clipped" in row["repaired"]]
    assert len(index.read(opened, index.condition("list_contains(repaired, 'clipped')"))) == len(clipped) > 0


def test_a_wrong_condition_is_one_sentence_with_the_columns() -> None:
    for text in ("tak = 'gqa'", "iou <", "read_text('/etc/passwd') IS NOT NULL", "1); DROP TABLE rows; SELECT (1"):
        with pytest.raises(UsageError) as error:
            index.condition(text)
        sentence = str(error.value)
        assert sentence.startswith(f"--where {text!r}: ") and "\n" not in sentence
        assert sentence.count("; give an SQL condition on the columns id, take, ") == 1
        assert sentence.endswith(", iou, text, severity, repaired, problems.")


def test_without_duckdb_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError) as error:
        index.condition("iou < .1")
    assert str(error.value) == "--where needs DuckDB; install it with `pip install 'vpt-data[where]'`."


def test_problems_of_rows_are_those_that_check_counts(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)

    def change(row: Row) -> bool:
        if row["take"] == "gqa":
            row["looks"] = [*row["looks"], "sam"]
        if row["take"] == "vsr":
            row["messages"][0]["role"] = "system"
        return row["take"] in {"gqa", "vsr"}

    assert small_corpora.change_rows(corpus, change) == 12
    due = {finding.rule: finding.count for finding in check(corpus).findings}
    found = kinds(index.read(open_corpus(corpus)))
    assert due == {rule: found[rule] for rule in due} and set(due) >= {"looks", "roles"}


def test_a_box_that_its_cells_do_not_show_is_found(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    before = kinds(index.read(open_corpus(corpus)))

    def change(row: Row) -> bool:
        if row["take"] != "gqa" or len(row["regions"]) != 1 or row["regions"][0]["box"][0]:
            return False
        row["regions"][0]["box"] = [row["image_info"][0]["width"] - 9.0, 0, row["image_info"][0]["width"], 9.0]
        return True

    changed = small_corpora.change_rows(corpus, change)
    found = kinds(index.read(open_corpus(corpus)))
    assert changed > 0 and before["uncovered"] == 0
    assert found["uncovered"] == changed


def test_a_box_outside_is_found(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)

    def change(row: Row) -> bool:
        if row["take"] == "cub":
            row["regions"] = [{"image": 0, "box": [900.0, 900.0, 950.0, 950.0], "label": None}]
        return bool(row["take"] == "cub")

    assert small_corpora.change_rows(corpus, change) == kinds(index.read(open_corpus(corpus)))["outside"] > 0
