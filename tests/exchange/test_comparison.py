"""Two corpora, or a corpus and a published file, compared: what is found, how it is counted, how it is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import error, run
from hypothesis import given
from hypothesis import strategies as st
from published_rows import published, rows_of
from test_published import CALL, GOOD, PLAIN, action, region, row, span, write

from vpt_data.exchange.comparison.difference import KINDS, Difference, difference
from vpt_data.exchange.comparison.pairs import out_of_order, paired
from vpt_data.exchange.comparison.side import open_side
from vpt_data.exchange.published.importing import import_file

Row = dict[str, Any]


def compared(folder: Path, a: list[Any], b: list[Any], *ignore: str) -> Difference:
    sides = [write(folder / f"{name}.json", rows) for name, rows in (("a", a), ("b", b))]
    return difference(open_side(sides[0]), open_side(sides[1]), ignore)


def test_the_same_rows_do_not_differ(tmp_path: Path) -> None:
    found = compared(tmp_path, GOOD, GOOD)
    assert (found.kinds, found.rows, found.paired, found.same) == ({}, (6, 6), 6, 6)


def text(row: Row, old: str, new: str) -> Row:
    changed: Row = json.loads(json.dumps(row).replace(old, new))
    return changed


@pytest.mark.parametrize(
    ("change", "kinds", "said"),
    [
        (lambda row: text(row, "pillow", "a pillow"), {"text": 1}, ("pillow", "a pillow")),
        (lambda row: region(span(0, 0, 6, 6)), {"tokens": 1}, (span(0, 0, 7, 6), span(0, 0, 6, 6))),
        (lambda row: region(crop="a/b.jpg_0,0,501,328"), {"crops": 1}, ("[0, 0, 500, 328]", "[0, 0, 501, 328]")),
        (lambda row: region(span(0, 0, 6, 6), "a/b.jpg_0,0,437,328"), {"tokens": 1, "crops": 1}, None),
        (lambda row: region(question="Look. And answer."), {"only_in_a": 1, "only_in_b": 1}, None),
        (lambda row: text(row, "a/b.jpg", "a/c.jpg"), {"only_in_a": 1, "only_in_b": 1}, None),
    ],
)
def test_each_kind_is_counted_and_shown(
    change: Callable[[Row], Row], kinds: dict[str, int], said: tuple[str, str] | None, tmp_path: Path
) -> None:
    found = compared(tmp_path, [PLAIN, region()], [PLAIN, change(region())])
    assert found.kinds == kinds
    assert found.takes == {kind: {"region": 1} for kind in kinds}
    assert found.same == 1
    assert [example.a for example in found.examples if example.a] == ["record 2"] * (
        len(kinds) - ("only_in_b" in kinds)
    )
    if said:
        assert (found.examples[0].in_a, found.examples[0].in_b) == said


def test_prompts_and_encoders_are_seen_in_rows_that_are_the_same_otherwise(tmp_path: Path) -> None:
    sam = row(
        "What is it?\n<image>", CALL.replace("detection", "seg"), "<seg_image>", "A tower.",
        images=["a/b.jpg"], seg_images=["a/b.jpg"],
    )  # fmt: skip
    assert compared(tmp_path, [action()], [sam]).kinds == {"text": 1, "tokens": 1, "images": 1}


def test_rows_that_repeat_are_paired_one_by_one(tmp_path: Path) -> None:
    other = region(span(0, 0, 1, 1), "a/b.jpg_0,0,125,93")
    assert compared(tmp_path, [region(), other], [other, region()]).kinds == {"order": 1}
    found = compared(tmp_path, [other, region(), region(question="so")], [region()])
    assert found.kinds == {"only_in_a": 2} and found.paired == 1


def test_order_and_records_that_are_not_compared_can_be_left_out(tmp_path: Path) -> None:
    found = compared(tmp_path, GOOD, [*GOOD[::-1], 7, GOOD[0]])
    assert found.kinds == {"order": 5, "not_compared": 2}
    assert found.takes["not_compared"] == {"malformed": 1, "duplicate": 1}
    assert compared(tmp_path, GOOD, [*GOOD[::-1], 7], "order", "not_compared").kinds == {}


def test_the_sample_corpus_survives_the_published_form(
    reference_corpus: Path, tmp_path: Path, sample_root: Path
) -> None:
    rows = [row for row in rows_of(reference_corpus) if row["template"] != "textbox" and not row["expected"]]
    file = write(tmp_path / "vpt.json", [published(row, "datasets/") for row in rows])
    import_file(file, tmp_path / "imported", False, sample_root)
    for other in (file, tmp_path / "imported"):
        found = difference(open_side(reference_corpus), open_side(other))
        assert found.paired == len(rows)
        assert {kind for kind in found.kinds if kind != "only_in_a"} <= {"order"}
    imported = {json.dumps(published(row)["messages"]) for row in rows_of(tmp_path / "imported")}
    assert imported == {json.dumps(published(row)["messages"]) for row in rows}


def test_the_command_ends_with_3_where_rows_differ(tmp_path: Path) -> None:
    other = [*GOOD[1:], text(PLAIN, "Hi", "<b>Ho")]
    a, b = write(tmp_path / "a.json", GOOD), write(tmp_path / "b.json", other)
    assert run("diff", a, a).exit_code == 0
    page = tmp_path / "page.html"
    shown = run("diff", a, b, "--html", page)
    assert shown.exit_code == 3 and "only_in_a (1): these rows are not in b; region 1." in shown.stdout
    assert "record 1" in page.read_text(encoding="utf-8") and "<b>Ho" not in page.read_text(encoding="utf-8")
    made = json.loads(run("diff", a, b, "--json", "--examples", "0").stdout)
    assert made["differ"] and made["examples"] == [] and made["rows"] == {"a": 6, "b": 6}
    assert "Unknown kind of difference 'ordr'; did you mean order?" in error("diff", a, b, "--ignore", "ordr", code=2)
    assert "no such file or folder" in error("diff", a, tmp_path / "c.json")
    (tmp_path / "cut.json").write_text(a.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert "truncated" in error("diff", a, tmp_path / "cut.json")
    (tmp_path / "d").mkdir()
    assert "no manifest.json" in error("diff", a, tmp_path / "d")
    assert set(KINDS) >= set(made["kinds"])


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), min_size=2, max_size=2))
def test_a_key_pairs_as_many_rows_as_both_sides_have(keys: list[list[int]]) -> None:
    a, b = (np.array(each, np.uint64) for each in keys)
    in_a, in_b = paired([a], [b])
    assert (a[in_a] == b[in_b]).all() and len(set(in_a.tolist())) == len(set(in_b.tolist())) == len(in_a)
    assert len(in_a) == sum(min(keys[0].count(key), keys[1].count(key)) for key in range(4))


@given(st.permutations(range(7)))
def test_the_fewest_rows_move(places: list[int]) -> None:
    moved = out_of_order(np.array(places))
    stay = [place for place, moves in zip(places, moved.tolist(), strict=True) if not moves]
    assert stay == sorted(stay)
    longest = [1] * len(places)
    for end in range(len(places)):
        longest[end] += max((longest[start] for start in range(end) if places[start] < places[end]), default=0)
    assert len(stay) == max(longest)
