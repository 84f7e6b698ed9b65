"""Published tables: what can be computed again agrees, but for the marked misprints; and verdicts by rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from answer_files import GQA, evaluate, gold, results

from trainer.evaluation import items
from trainer.evaluation.published import tables, verdicts
from trainer.evaluation.results import Results, Split, Value

GPT = {"model": "gpt-4o-2024-08-06", "prompt": "vpt-2025-03", "as_published": True}
STATED = {"pixels": 512, "generation": {"expand": 1}}


def failing(table: tables.Table) -> Iterator[tuple[str | None, str]]:
    """Row and column of what cannot be: wrong averages, no share of so many items, a whole column over its limit."""
    for row in table.rows:
        cells = dict(zip(table.columns, row.values, strict=True))
        average = cells.pop("Average", math.nan)
        # The average is rounded, and so are the values that it is computed from again.
        step = 0.001 if average < 1 else 0.1
        if abs(sum(cells.values()) / len(cells) - average) > step:
            yield row.name or row.model, "Average"
        for column, count in table.items.items():
            right = round(cells[column] * count / 100)
            if abs(cells[column] - 100 * right / count) >= 0.1:
                yield row.name or row.model, column
    for column, highest in table.highest.items():
        if all(row.values[table.columns.index(column)] > highest for row in table.rows):
            yield None, column


@pytest.mark.parametrize("name", tables.PAPERS)
def test_the_marked_misprints_are_what_cannot_be(name: str) -> None:
    for table in tables.paper(name).tables.values():
        assert sorted(failing(table), key=str) == sorted(((one.row, one.column) for one in table.misprints), key=str)


def test_the_tables_are_there_and_whole() -> None:
    vpt, aurora = (tables.paper(name) for name in tables.PAPERS)
    assert list(vpt.tables) == ["3", "4", "5", "6", "S1", "S2-IoU", "S2-IoGT"]
    assert list(aurora.tables) == list("1234567")
    for table in (*vpt.tables.values(), *aurora.tables.values()):
        assert all(len(row.values) == len(table.columns) for row in table.rows)
        assert {*table.items, *table.highest, *(one.column for one in table.misprints)} <= {*table.columns}
    values = [len(row.values) for known in (vpt, aurora) for table in known.tables.values() for row in table.rows]
    assert sum(values[:10]) == 120
    named = [row.name or row.model for table in vpt.tables.values() for row in table.rows]
    assert len(named) == len(set(named))
    assert {split.column for split in vpt.splits.values()} <= {
        *vpt.tables["3"].columns, *vpt.tables["6"].columns,
    }  # fmt: skip


def figure(rows: int, ours: float = 0.625) -> dict[str, Value]:
    return {"judge": Value(ours, ours - 0.02, ours + 0.02, rows, 400)}


def made(ours: float, **more: Any) -> Results:
    """Results of the 978 rows of GQA, whose looks asked for regions."""
    value = figure(978, ours)["judge"]
    split = Split(
        rows=978, images=400, metric="gqa", owner=True, answered=978, unscored=0, ended={}, faults={},
        figures={"judge": value}, judge_faults=0, triggers={"region": {"region": 978, "reencode": 0}},
        trigger_scores={}, invalid={}, regions={"iou_box": value}, sizes={},
    )  # fmt: skip
    given: dict[str, Any] = {"about": STATED, "judge": GPT} | more
    changed = {name: given.pop(name) for name in list(given) if name in Split.__struct_fields__}
    return Results(
        schema_version=2, versions={}, corpus={}, items={}, answers="", settings={}, metrics={}, averages={},
        splits={GQA: msgspec.structs.replace(split, **changed)}, **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "verdict", "difference"), [(0.625, "within", 0.0), (0.66, "above", 0.035), (0.58, "below", -0.045)]
)
def test_verdicts_are_by_the_interval(ours: float, verdict: str, difference: float) -> None:
    found = verdicts.beside("vpt:2b-dino-512", made(ours)).splits[GQA]
    assert (found.paper, found.verdict, found.why) == (0.625, verdict, "")
    assert found.difference == pytest.approx(difference)


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("2b-dino-512", {"judge": None}, "published are scores of a judge (--judge gpt-4o-2024-08-06)"),
        ("2b-dino-512", {"judge": GPT | {"model": "mine"}}, "judged by mine, published by gpt-4o-2024-08-06"),
        ("2b-dino-512", {"judge": GPT | {"prompt": "new"}}, "prompt of the judge new, published vpt-2025-03"),
        ("2b-dino-512", {"judge": GPT | {"as_published": False}},
         "replies of the judge are not read as published (--judge-as-published)"),
        # Eight rows got no score of the judge: they are in the set, and not in the figure.
        ("2b-dino-512", {"figures": figure(970)}, "970 rows in the figure, published 978"),
        ("2b-dino-512", {"about": {**STATED, "protocol": "direct"}},
         "the model may not look (protocol direct), the published one does"),
        ("2b-dino-512", {"triggers": {}, "about": {"pixels": 512}},
         "expand is not stated, published 1 (--about expand=1)"),
        ("2b-dino-512", {"about": {"pixels": "512", "generation": "greedy"}},
         "expand is not stated, published 1 (--about expand=1)"),
        ("2b-dino-512", {"about": STATED | {"pixels": None}},
         "pixels is not stated, published 512 (--longest 512)"),
        ("2b-dino-224", {}, "pixels 512, published 224"),
        ("2b-dino-512", {"about": {"expand": "1"}}, "pixels is not stated, published 512 (--about pixels=512)"),
        ("2b-dino-512", {"about": STATED | {"generation": {"expand": 0}}}, "expand 0, published 1"),
        ("2b-dino-512", {"about": {"pixels": "512"}}, "expand is not stated, published 1 (--about expand=1)"),
        ("2b-dino-512", {"about": STATED | {"intervention": "crop=none"}}, "looks were changed (crop=none)"),
        ("2b-dino-512", {"about": {}, "judge": None, "figures": {}, "rows": 40, "triggers": {"none": {"region": 0}}},
         ("40 rows, published 978; published are scores of a judge (--judge gpt-4o-2024-08-06); "
          "pixels is not stated, published 512 (--about pixels=512)")),
        ("2b-dino-512", {"figures": {}}, "this split has no such figure, or too few images for an interval"),
        ("region-k8", {}, "the table has no column for this split"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_says_why(name: str, more: dict[str, Any], why: str) -> None:
    found = verdicts.beside(f"vpt:{name}", made(0.625, **more)).splits[GQA]
    assert (found.verdict, found.why) == ("not comparable", why)


def test_rows_whose_crop_fails_are_in_no_mean_of_the_paper_either() -> None:
    found = verdicts.beside("vpt:2b-dino-512", made(0.625, figures=figure(975), invalid={"region_crop_failed": 3}))
    assert found.splits[GQA].verdict == "within"


@pytest.mark.parametrize(
    ("row", "verdict"), [("2b-dino-512", "not comparable"), (None, "not comparable"), ("x", "within")]
)
def test_a_misprint_is_not_compared(row: str | None, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paper, number, printed = tables.rows()["vpt:2b-dino-512"]
    table = msgspec.structs.replace(paper.tables[number], misprints=[tables.Misprint("GQA", "no such share", row)])
    paper = msgspec.structs.replace(paper, tables={number: table})
    monkeypatch.setattr(verdicts, "rows", lambda: {"vpt:2b-dino-512": (paper, number, printed)})
    found = verdicts.beside("vpt:2b-dino-512", made(0.625)).splits[GQA]
    assert (found.paper, found.verdict) == (0.625, verdict)
    assert found.why == ("the published value is a misprint: no such share" if verdict == "not comparable" else "")


def test_a_model_that_crops_nothing_needs_no_expand() -> None:
    found = verdicts.beside("vpt:qwen2-vl-2b-512", made(0.487, about={"pixels": "512"})).splits[GQA]
    assert found.verdict == "within"


def test_regions_are_compared_with_the_table_of_regions() -> None:
    """Their IoU needs no judge."""
    result = made(0.26, judge=None)
    result = msgspec.structs.replace(result, splits={"DocVQA_region_test": result.splits[GQA]})
    found = verdicts.beside("vpt:region-iou", result).splits["DocVQA_region_test"]
    assert (found.paper, found.difference) == (0.26, 0.0)
    assert found.why == "978 rows in the figure, published 888; the paper does not say at which resolution"


def test_the_command(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row for row in gold(asked) if row["id"].startswith(GQA)]
    options = ("--split", GQA, "--judge", "offline", "--about", "pixels=512", "--about", "expand=1")
    assert results(corpus, rows, tmp_path, *options)["published"] is None
    assert "paper" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    found = results(corpus, rows, tmp_path, *options, "--published", "vpt:2b-dino-512")["published"]
    assert (found["model"], found["table"], found["paper"]) == ("2B-VPT-DINO", "3", "arXiv 2502.17425")
    assert found["splits"][GQA]["difference"] == 0.375
    why = f"{len(rows)} rows in the figure, published 978; judged by offline, published by gpt-4o-2024-08-06"
    assert found["splits"][GQA]["why"] == why
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert f"| 0.625 | +0.375 | not comparable | {why} |" in report


def test_an_unknown_row_is_refused_with_all_names(tmp_path: Path) -> None:
    done = evaluate("--predictions", tmp_path / "none.jsonl", "--published", "list")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --published list: expected one of vpt:qwen2-vl-2b-224, ")
    assert "vpt:2b-dino-512, " in done.stderr and "aurora" not in done.stderr and "-general" not in done.stderr
