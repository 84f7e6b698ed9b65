"""Why records are not in a corpus: counted and listed, and the first of each kind shown by the build."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers import end_to_end
from helpers.command import error, run

from vpt_data.cli.common import fail
from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.drops import drops, first_of_each


@pytest.fixture(scope="module")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build("sample", sample_root, tmp_path_factory.mktemp("drops") / "corpus")


def test_counts_are_those_of_the_manifest(corpus: Path) -> None:
    made = open_corpus(corpus).manifest
    due = Counter({(part.take, reason): n for part in made.components for reason, n in part.dropped.items()})
    found = drops(corpus)
    assert found.counts == due
    assert len(found.listed) == sum(due.values())
    bad = drops(corpus, reasons=["malformed"], limit=1)
    assert sum(bad.counts.values()) == sum(n for (_, reason), n in due.items() if reason == "malformed") > 1
    assert [drop.reason for drop in bad.listed] == ["malformed"]


def test_the_first_of_each_is_the_first_in_the_table(corpus: Path) -> None:
    rows = open_corpus(corpus).dropped().to_pylist()
    for drop in first_of_each(corpus, ["malformed", "empty_answer", "no_size_of_that_kind"]):
        first = next(row for row in rows if row["reason"] == drop.reason)
        assert (drop.file, drop.line, drop.detail) == (first["file"], first["line"], first["detail"])


def test_the_command_lists_and_counts(corpus: Path) -> None:
    found = json.loads(run("drops", corpus, "--reason", "malformed", "--json").stdout)
    assert found["records"] == sum(sum(counts.values()) for counts in found["counts"].values()) > 1
    assert {row["reason"] for row in found["drops"]} == {"malformed"}
    text = run("drops", corpus, "--take", "docvqa", "--limit", "1").stdout.splitlines()
    assert text[0].split() == ["take", "reason", "records"]
    assert text[-1].startswith("... and ") and text[-1].endswith(" more; --limit N lists more of them.")
    assert text[-2].startswith("docvqa, ") and " line " in text[-2]


def test_errors_name_what_is_there(corpus: Path, tmp_path: Path) -> None:
    assert error("drops", corpus, "--reason", "malformd", code=2).endswith("'malformd'; did you mean malformed?")
    assert error("drops", corpus, "--take", "gqb", code=2).startswith("Unknown take 'gqb'; did you mean gqa")
    assert run("drops", corpus, "--take", "gqa").stdout == "No record was dropped.\n"
    there = "no dropped.parquet here; give the output folder of `vpt-data build`, or run the build again."
    expected = f"{tmp_path}: {there}"
    assert error("drops", tmp_path) == expected


def test_the_names_of_a_file_do_not_reach_the_terminal_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image name that would set the title of the terminal and begin a line of its own."""
    rows = [row | {"image": "a\x1b]0;title\x07\nmine, malformed: b.png"} for row in end_to_end.own_rows(2)]
    raw = end_to_end.own_root(tmp_path / "raw", rows)
    recipe = end_to_end.recipe_file(tmp_path)
    built = run("build", "--recipe", recipe, "--raw", raw, "--out", tmp_path / "out", "--images", "embed")
    shown = "a\ufffd]0;title\ufffd mine, malformed: b.png: not under the raw root"
    for text in (built.stdout, run("drops", tmp_path / "out").stdout):
        assert any(line.endswith(shown) for line in text.splitlines()), text
        assert "\x1b" not in text and "\x07" not in text
    with pytest.raises(SystemExit):
        fail("a.json: \x1b]0;title\x07\nb", 1)
    assert capsys.readouterr().err == "Error: a.json: \ufffd]0;title\ufffd b\n"


def test_a_build_shows_the_first_of_each_kind_and_where_the_others_are(tmp_path: Path) -> None:
    rows = end_to_end.own_rows(9)
    rows[3]["answer"] = rows[5]["answer"] = ""
    raw = end_to_end.own_root(tmp_path / "raw", [*rows, rows[0]])
    recipe, out = end_to_end.recipe_file(tmp_path), tmp_path / "corpus"
    command = ["build", "--recipe", recipe, "--raw", raw, "--out", out, "--workers", "1"]
    lines = [line for line in run(*command).stdout.splitlines() if line.startswith("dropped: ")]
    assert len(lines) == 2, "a duplicate is dropped by rule and is not shown"
    assert lines[0].startswith("dropped: empty_answer 2, the first: own/rows.jsonl line 4")
    assert lines[1] == f"dropped: `vpt-data drops {out}` lists all of them"
    assert run("drops", out, "--reason", "empty_answer").stdout.count("own/rows.jsonl line") == 2


def test_a_build_without_a_row_can_be_asked_too(tmp_path: Path) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", [{**row, "answer": ""} for row in end_to_end.own_rows(2)])
    recipe, out = end_to_end.recipe_file(tmp_path), tmp_path / "corpus"
    assert run("build", "--recipe", recipe, "--raw", raw, "--out", out, "--workers", "1").exit_code == 1
    assert json.loads(run("drops", out, "--json").stdout)["counts"] == {"mine": {"empty_answer": 2}}
