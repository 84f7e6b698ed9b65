"""The linter of published files: the quoted rows, one broken row for every rule, streams of any form."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import geometry
from vpt_data.cli.main import main
from vpt_data.errors import RawError
from vpt_data.exchange.published import lint as published
from vpt_data.exchange.published.crops import contradictions
from vpt_data.exchange.published.lint import lint
from vpt_data.report import CheckResult, Finding

Row = dict[str, Any]
TRIGGER = "Identify the region that can help you answer the question, and then answer the question."
ASK = "Require additional perception features, and then answer the question."
CALL = "<|detection_action_start|><|detection_action|><|detection_action_end|>"


def span(*cells: int | str) -> str:
    x0, y0, x1, y1 = cells
    return f"<|region_token_start|><|x_{x0}|><|y_{y0}|><|x_{x1}|><|y_{y1}|><|region_token_end|>"


def row(*texts: str, **lists: list[str]) -> Row:
    messages = [{"content": text, "role": ("user", "assistant")[place % 2]} for place, text in enumerate(texts)]
    names = ("images", "detection_images", "seg_images", "clip_images")
    return {"messages": messages, **{name: lists.get(name, []) for name in names}}


def region(cells: str = span(0, 0, 7, 6), crop: str = "a/b.jpg_0,0,500,328", question: str = TRIGGER) -> Row:
    return row(f"<image>\nWhere? \n{question}", cells, "<image>", "pillow", images=["a/b.jpg", crop])


def action(call: str = CALL, **lists: list[str]) -> Row:
    filled = {"images": ["a/b.jpg"], "detection_images": ["a/b.jpg"]} | lists
    return row(f"What is it?\n<image>\n{ASK}", call, "<detection_image>", "A tower.", **filled)


PLAIN = row("<image>\nHello?", "Hi", "And?", "Bye", images=["dir_with/under_scores.v2/a_b.jpg"])
ALIGNMENT = row("<seg_image>\nDescribe it.", "a dog", seg_images=["a.jpg"])
TWO = row(
    "<image>\nWhere?",
    span(0, 0, 1, 1) + span(2, 2, 3, 3),
    "Region 0: <image>\nRegion 1: <image>\n",
    "There.",
    images=["a.jpg", "a.jpg_0,0,20,20", "a.jpg_20,20,40,40"],
)
GOOD = [region(), region(question="so"), action(), PLAIN, ALIGNMENT, TWO]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def linted(tmp_path: Path, *rows: Row) -> CheckResult:
    return lint(write(tmp_path / "MixVRT.json", list(rows)))


def test_good_rows(tmp_path: Path) -> None:
    report = linted(tmp_path, *GOOD)
    assert report.findings == []
    assert (report.kind, report.rows) == ("published", 6)
    assert report.counts["kinds of rows"] == {"alignment": 1, "dino": 1, "plain": 1, "region": 3}
    assert report.counts["prompts"] == {"action prompted": 1, "region free": 2, "region prompted": 1}


def test_the_quoted_row(tmp_path: Path) -> None:
    """The one published region row that is known names column 8, which is no token."""
    report = linted(tmp_path, *GOOD, region(span(0, 0, 8, 6), "GQA/images/2408356.jpg_0,0,562,328"))
    assert report.findings == [Finding("MixVRT.json", "region_index_x", 1, f"row 6: {span(0, 0, 8, 6)}")]


def no(key: str) -> Row:
    return {name: value for name, value in action().items() if name != key}


OPEN = span(0, 0, 1, 1).removesuffix("<|region_token_end|>")
CASES: dict[str, tuple[Row, list[str]]] = {
    "no key": (no("seg_images"), ["keys"]),
    "another key": (action() | {"index": 7}, ["keys"]),
    "messages of another type": (action() | {"messages": "hello"}, ["malformed"]),
    "a list of another type": (action() | {"images": ["a", 1]}, ["malformed"]),
    "a null list": (action() | {"seg_images": None}, ["malformed"]),
    "odd": (row("<image>a", "b", "c", images=["a.jpg"]), ["roles"]),
    "empty": (row(), ["roles"]),
    "assistant first": (
        {**row(), "messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]},
        ["roles"],
    ),
    "a system turn": (
        {**row(), "messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ["roles"],
    ),
    "an image too few": (row("<image>a", "b"), ["placeholders_images"]),
    "an image too many": (row("a", "b", images=["a.jpg"]), ["placeholders_images"]),
    "detection images": (
        row("a", "b", detection_images=["a.jpg"]),
        ["placeholders_detection_images"],
    ),
    "seg images": (row("<seg_image>", "b"), ["placeholders_seg_images"]),
    "clip images": (row("<clip_image><clip_image>", "b", clip_images=["a"]), ["placeholders_clip_images"]),
    "two extra lists": (
        row("<seg_image><clip_image>", "b", seg_images=["a"], clip_images=["a"]),
        ["extra_lists"],
    ),
    "column 8": (region(span(0, 0, 8, 6)), ["region_index_x"]),
    "row 8": (region(span(0, 0, 7, 8)), ["region_index_y"]),
    "both 8": (region(span(8, 8, 8, 8)), ["region_index_x", "region_index_y"]),
    "a negative column": (region(span("-1", 0, 1, 1)), ["region_index_x"]),
    "a leading zero": (region(span("00", 0, 1, 1)), ["region_index_x"]),
    "reversed": (region(span(5, 0, 1, 1)), ["region_reversed"]),
    "no end": (region(OPEN), ["region_no_end"]),
    "no start": (region(span(0, 0, 1, 1)[22:]), ["region_no_start"]),
    "wrong count": (region(span(0, 0, 1, 1).replace("<|y_1|>", "")), ["region_wrong_count"]),
    "wrong order": (
        region(span(0, 0, 1, 1).replace("<|x_0|><|y_0|>", "<|y_0|><|x_0|>")),
        ["region_wrong_order"],
    ),
    "one axis": (region(span(0, 0, 1, 1).replace("y_", "x_")), ["region_missing_axis"]),
    "text between": (
        region(span(0, 0, 1, 1).replace("<|x_1|>", "and <|x_1|>")),
        ["region_text_between_tokens"],
    ),
    "blanks between": (region(span(0, 0, 1, 1).replace("><", "> <")), ["region_space_between_tokens"]),
    "no call end": (action(CALL[:-28]), ["action_missing_end"]),
    "no call start": (action(CALL[28:]), ["action_missing_start"]),
    "no control token": (
        action("<|detection_action_start|><|detection_action_end|>"),
        ["action_missing_control"],
    ),
    "two encoders": (
        action(CALL.replace("<|detection_action_end", "<|seg_action_end")),
        ["action_mixed_encoders"],
    ),
    "words in a call": (action(CALL.replace("><", ">so<")), ["action_text_between_tokens"]),
    "blanks in a call": (action(CALL.replace("><", "> <")), ["action_space_between_tokens"]),
    "two control tokens": (
        action(CALL.replace("<|detection_action|>", "<|detection_action|>" * 2)),
        ["action_control_tokens"],
    ),
    "nothing to look at": (
        row("<image>a", CALL, "so", "b", images=["a.jpg"]),
        ["action_list"],
    ),
    "six turns": (
        row("<image>a", CALL, "<detection_image>", "b", "c", "d", images=["a"], detection_images=["a"]),
        ["action_turns"],
    ),
    "no crop": (
        row("<image>a", span(0, 0, 1, 1), "<image>", "b", images=["a.jpg", "a.jpg"]),
        ["region_crops"],
    ),
    "a crop too many": (row("<image>a", "b", images=["a.jpg_0,0,1,1"]), ["region_crops"]),
    "a crop of an extensionless file": (region(crop="dir.v2/img_0,0,1,1"), []),
    "no extension, dotted folder": (
        region(crop="a.jpg_0,0,9,9") | {"images": ["v.2/img_7", "a.jpg_0,0,9,9"]},
        ["crop_suffix"],
    ),
    "numbers with fractions": (region(crop="a.jpg_0.5,0,9,9"), ["crop_suffix"]),
    "numbers without end": (region(crop="a.jpg_0,0,9,99999999999999999999"), ["crop_suffix"]),
    "three numbers": (region(crop="a.jpg_0,0,9"), ["crop_suffix", "region_crops"]),
    "a suffix that is none": (row("<image>a", "b", images=["a.jpg_old"]), ["crop_suffix"]),
    "a crop that begins elsewhere": (region(crop="a.jpg_100,0,500,328"), ["crop_cells"]),
    "crops of two sizes": (
        row(
            "<image>\nWhere?",
            span(0, 0, 1, 1) + span(2, 2, 3, 3),
            "Region 0: <image>\nRegion 1: <image>\n",
            "There.",
            images=["a.jpg", "a.jpg_0,0,10,10", "a.jpg_20,20,40,40"],
        ),
        ["crop_cells"],
    ),
    "an empty crop": (region(crop="a.jpg_5,0,5,9"), ["crop_box"]),
    "an upside-down crop": (region(crop="a.jpg_0,9,5,3"), ["crop_box"]),
    "a negative crop": (region(crop="a.jpg_-1,0,5,3"), ["crop_box"]),
    "a token in the question": (row("<image> <|x_1|>", "b", images=["a.jpg"]), ["special_text"]),
}


@pytest.mark.parametrize(("bad", "rules"), CASES.values(), ids=CASES)
def test_one_bad_row(tmp_path: Path, bad: Row, rules: list[str]) -> None:
    report = linted(tmp_path, *GOOD, bad, *GOOD)
    assert {found.rule: found.count for found in report.findings} == dict.fromkeys(rules, 1)
    assert all(found.example.startswith("row 6") for found in report.findings)
    assert report.rows == 13


def test_every_rule_is_tested() -> None:
    tested = {rule for _, rules in CASES.values() for rule in rules}
    # The index has rules of its own, by axis.
    assert set(published.rules()) - tested == {"region_index_out_of_range"}


def test_counts_are_added_up(tmp_path: Path) -> None:
    bad = region(span(0, 0, 8, 6))
    report = linted(tmp_path, *GOOD, *([bad] * 5), region(span(0, 3, 8, 8)))
    assert [(found.rule, found.count) for found in report.findings] == [
        ("region_index_x", 6),
        ("region_index_y", 1),
    ]
    assert report.findings[1].example == f"row 11: {span(0, 3, 8, 8)}"


def test_prompts_are_counted(tmp_path: Path) -> None:
    elsewhere = region()
    elsewhere["messages"][0]["content"] = f"<image>\n{TRIGGER}\nWhere?"
    report = linted(tmp_path, elsewhere)
    assert report.counts["prompts"] == {"region prompt elsewhere": 1}
    assert report.findings == []


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    both = row(
        "<image>a", CALL, "<detection_image>", "b", "c", span(0, 0, 1, 1), "<image>", "d",
        images=["a.jpg", "a.jpg_0,0,1,1"], detection_images=["a"],
    )  # fmt: skip
    report = linted(tmp_path, both)
    assert report.counts["kinds of rows"] == {"region+dino": 1}
    assert [found.rule for found in report.findings] == ["action_turns"]


# ---- files


def as_lines(rows: list[Row]) -> bytes:
    return "".join(f"{json.dumps(each)}\n" for each in rows).encode()


FORMS: dict[str, Callable[[list[Row]], bytes]] = {
    "a.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "a.jsonl": as_lines,
    "a.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "a.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name]([*GOOD, CASES["column 8"][0]]))
    report = lint(tmp_path / name)
    assert (report.rows, [found.rule for found in report.findings]) == (7, ["region_index_x"])


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", GOOD)
    path.write_bytes(path.read_bytes()[:-30])
    (found,) = lint(path).findings
    assert (found.rule, found.count) == ("malformed", 1)
    assert found.example == "row 5: truncated: the file ends inside a record"


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("hello")
    with pytest.raises(RawError, match=r"a\.json: the file starts with b'h'; expected JSON lines or one JSON array"):
        lint(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("")
    with pytest.raises(RawError, match=r"a\.json: the file is empty"):
        lint(tmp_path / "a.json")


def test_command(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.json", [*GOOD, CASES["row 8"][0]]))
    done = CliRunner().invoke(main, ["check", path])
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert lines[0] == "kinds of rows: alignment 1, dino 1, plain 1, region 4"
    assert lines[2] == "region_index_y (1): row indices of region tokens are 0..7: others are no tokens."
    assert lines[3] == f"    a.json: row 6: {span(0, 0, 7, 8)}"
    said = json.loads(CliRunner().invoke(main, ["check", path, "--json"]).stdout)
    assert (said["kind"], said["rows"], said["ok"]) == ("published", 7, False)
    good = str(write(tmp_path / "good.json", GOOD))
    done = CliRunner().invoke(main, ["check", good])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{good}: 6 rows, nothing found.")


@given(st.lists(st.sampled_from(range(6)), max_size=30), st.integers(1, 400))
def test_chunks_do_not_matter(tmp_path_factory: pytest.TempPathFactory, which: list[int], size: int) -> None:
    """Findings and counts of a file do not depend on where the reader cuts it."""
    bad = [CASES[name][0] for name in ("column 8", "no crop", "no key")]
    rows = [[*GOOD[:3], *bad][number] for number in which] or [PLAIN]
    folder = tmp_path_factory.mktemp("chunks")
    whole = lint(write(folder / "a.json", rows))
    parts = published.Linter("a.json")
    for part in published.read_records(
        published.RawFile(folder / "a.json", "a.json"), dict[str, Any], chunk_bytes=size
    ):
        parts.add(part)
    assert parts.findings.findings() == whole.findings
    assert parts.counts() == whole.counts


CELL = st.tuples(st.integers(0, 7), st.integers(0, 7)).map(sorted)
SPAN = st.tuples(CELL, CELL).map(lambda pair: [pair[0][0], pair[1][0], pair[0][1], pair[1][1]])


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.lists(SPAN, min_size=1, max_size=4))
def test_crops_of_any_image_fit_their_tokens(size: tuple[int, int], spans: list[list[int]]) -> None:
    cells = np.array(spans)
    crops = geometry.crop(cells, np.tile(size, (len(cells), 1)), 8, 0)
    row, path = np.zeros(len(cells), np.int64), pa.array(["a.jpg"] * len(cells))
    assert not contradictions(row, path, cells, crops.astype(np.int64), 8).any()


@given(st.integers(64, 5000), SPAN, SPAN)
def test_a_crop_of_other_cells_is_seen_beside_a_right_one(side: int, right: list[int], other: list[int]) -> None:
    """The whole image beside it gives its size away."""
    cells = np.array([[0, 0, 7, 7], right])
    shown = np.array([[0, 0, 7, 7], other])
    crops = geometry.crop(shown, np.full((2, 2), side), 8, 0).astype(np.int64)
    bad = contradictions(np.zeros(2, np.int64), pa.array(["a.jpg"] * 2), cells, crops, 8)
    assert bad.any() == (right != other)
