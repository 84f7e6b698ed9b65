"""Mistakes in a file of answers, and wrong options, are one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from answer_files import POPE, evaluate, gold, results, written

from trainer.evaluation import items, predictions
from vpt_data.errors import RawError

Change = Callable[[list[dict[str, Any]]], Iterable[Mapping[str, Any]]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: [*rows, rows[3]], "the id {third!r} comes twice; keep one answer for each row."),
        (
            lambda rows: [*rows, {"id": rows[0]["id"] + "0", "answer": "x"}],
            "the id '{first}0' is not in the corpus; did you mean '",
        ),
        (
            lambda rows: [*rows, {"id": "?", "answer": "x"}],
            "the id '?' is not in the corpus; give the corpus that was asked.",
        ),
        (
            lambda rows: rows[2:],
            "no answer for 2 of {count} rows, the first is {first!r}; add them, or count them as wrong with --missing",
        ),
        (lambda rows: [{"id": "a"}], "line 1: neither `answer` nor `turns`; expected one of them, as {example}."),
        (
            lambda rows: [{"id": 7, "answer": "x"}],
            "line 1: Expected `str`, got `int` - at `$.id`; expected one object a line, as {example}.",
        ),
        (
            lambda rows: [{"id": "a", "answer": "x", "ended": "late"}],
            "line 1: Invalid enum value 'late' - at `$.ended`; expected one object a line, as {example}.",
        ),
        (
            lambda rows: [{"id": "a", "answer": "x", "k": 0}],
            "line 1: Expected `int` >= 1 - at `$.k`; expected one object a line, as {example}.",
        ),
        (
            lambda rows: [{"id": "a", "answer": "x", "tokens": 2**31}],
            "line 1: Expected `int` <= 2147483647 - at `$.tokens`; expected one object a line, as {example}.",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(
    corpus: Path, asked: items.Items, tmp_path: Path, change: Change, sentence: str
) -> None:
    rows = gold(asked)
    file = written(tmp_path, change(rows))
    done = evaluate("--predictions", file, "--data", corpus, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (1, "")
    filled = sentence.format(first=rows[0]["id"], third=rows[3]["id"], count=len(rows), example=predictions.EXAMPLE)
    assert done.stderr.startswith(f"Error: {file}: {filled}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_utf_8_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"id": "a", "answer": "café"}'.encode("latin-1"))
    with pytest.raises(RawError, match=r"a\.jsonl: line 1: 'utf-8' codec .*; expected one object a line, as "):
        predictions.read(tmp_path / "a.jsonl")


def test_missing_rows_can_count_as_wrong(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = [row for row in gold(asked) if not row["id"].startswith(POPE)]
    found = results(corpus, rows, tmp_path, "--missing-as-wrong")["splits"]
    assert (found[POPE]["answered"], found[POPE]["figures"]["score"]["value"]) == (0, 0.0)
    assert found["GQA_region_test"]["figures"]["score"]["value"] == 1.0


def test_rows_that_a_model_could_not_be_asked_are_counted(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    first, second, *others = gold(asked)
    lost = [{"id": first["id"], "ended": "fault", "fault": "too_long: 9,000 tokens"},
            {"id": second["id"], "ended": "fault", "fault": "bad_image: not there"}]  # fmt: skip
    file = written(tmp_path, [*lost, *others])
    done = evaluate("--predictions", file, "--data", corpus, "--out", tmp_path / "out")
    count = len(others) + 2
    assert done.stderr == f"2 of {count} rows could not be asked and score 0: bad_image 1, too_long 1\n"


def test_wrong_usage(corpus: Path, asked: items.Items, embedded_corpus: Path, tmp_path: Path) -> None:
    file, missing = written(tmp_path, gold(asked)), tmp_path / "missing.jsonl"

    def error(code: int, *arguments: str | Path) -> str:
        done = evaluate("--predictions", file, "--data", corpus, "--out", tmp_path / "out", *arguments)
        assert (done.exit_code, done.stdout) == (code, ""), done.output
        return done.stderr

    assert error(2, "--metric", "POPE") == (
        "Error: --metric POPE: expected a name and a value, for instance POPE_action_test=pope_owners.\n"
    )
    assert error(2, "--metric", "x=anlss") == "Error: Unknown metric 'anlss'; did you mean anls or anls_list?\n"
    assert error(2, "--metric", "GQA_region=exact") == (
        "Error: Unknown take of --metric 'GQA_region'; did you mean GQA_region_test or DocVQA_region_test or "
        "TextVQA_region_test?\n"
    )
    assert error(2, "--second-judge", "m") == "Error: --second-judge needs --judge: it judges what the first one did.\n"
    assert error(2, "--split", "POPE").startswith(f"Error: Unknown split of {corpus} 'POPE'; ")
    assert error(2, "--metric", "GQA_region_test=choice").endswith(
        "' has no options, one a line as `A. vase`; score its take with another metric (--metric TAKE=NAME).\n"
    )
    assert error(1, "--against", tmp_path) == (
        f"Error: {tmp_path}: holds no results.json; name the folder of an evaluation that is done.\n"
    )
    assert error(1, "--out", tmp_path) == (f"Error: {tmp_path}: holds files of something else; name another folder.\n")
    assert error(1, "--out", file) == f"Error: {file}: is a file; name a folder.\n"
    assert error(2, "--data", embedded_corpus) == (
        f"Error: {embedded_corpus}: no row of it is for evaluation (column `expected`); build a corpus with a recipe "
        "such as vpt_eval or sample_eval.\n"
    )
    assert error(2, "--raw", missing) == (
        f"Error: {missing}: no such folder; give the raw root that holds the images of these rows.\n"
    )
    assert error(1, "--predictions", missing) == (
        f"Error: {missing}: cannot be read (No such file or directory); give a file with one prediction a line.\n"
    )


FILE, SERVER, OURS = ("--predictions", "a.jsonl"), ("--server", "http://127.0.0.1:9/v1", "--model", "m"), ()


@pytest.mark.parametrize(
    ("answers", "options", "sentence"),
    [
        (FILE, "--protocol direct", "--protocol direct has no effect with --predictions; leave it out."),
        (FILE, "--protocol paper --expand 1", "--expand has no effect with --predictions; leave it out."),
        (FILE, "--longest 224", "--longest has no effect with --predictions; leave it out."),
        (FILE, "--max-new-tokens 256", "--max-new-tokens has no effect with --predictions; leave it out."),
        (FILE, "--batch 16", "--batch has no effect with --predictions; leave it out."),
        (FILE, "--device cpu", "--device has no effect with --predictions; leave it out."),
        (FILE, "--judge-workers 8", "--judge-workers has no effect without --judge; leave it out."),
        (FILE, "--judge-as-published", "--judge-as-published has no effect without --judge; leave it out."),
        (SERVER, "--device cuda", "--device has no effect with --server; leave it out."),
        (SERVER, "--dtype float32", "--dtype has no effect with --server; leave it out."),
        (SERVER, "--workers 2", "--workers has no effect with --server; leave it out."),
        (SERVER, "--config tiny", "Give --weights PATH together with --config NAME."),
        (SERVER, "--missing-as-wrong", "--missing-as-wrong has no effect without --predictions; leave it out."),
        (OURS, "--missing-as-wrong", "--missing-as-wrong has no effect without --predictions; leave it out."),
    ],
)
def test_an_option_that_nothing_would_use_is_refused(answers: tuple[str, ...], options: str, sentence: str) -> None:
    """Also where its value is that of the default."""
    done = evaluate(*answers, *options.split())
    assert (done.exit_code, done.output) == (2, f"Error: {sentence}\n")
