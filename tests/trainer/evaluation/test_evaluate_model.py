"""`python -m trainer.evaluate --checkpoint`: a model is asked, and no row that a dead process has written again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from asked_runs import SPLITS, evaluate, made, records, results
from click.testing import CliRunner
from helpers import end_to_end

from trainer.evaluate import main
from trainer.evaluation import folder, items
from trainer.evaluation.asking.model import STATED, Source, identity
from trainer.evaluation.asking.questions import decoding, made_with, questions
from trainer.evaluation.predictions import Prediction
from trainer.packages import versions
from vpt_data.corpus.reader import open_corpus
from vpt_data.dialogue import prompts
from vpt_data.errors import OutputError

ROWS = 2 * len(SPLITS)
ASKED = ("--limit", "2", *(word for split in SPLITS for word in ("--split", split)))


@pytest.fixture(scope="module")
def corpus(embedded: Path) -> Path:
    return embedded


@pytest.fixture(scope="module")
def whole(run: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = evaluate(run, corpus, out)
    assert done.exit_code == 0, done.output
    return out


def test_every_row_is_asked_and_scored(whole: Path, corpus: Path) -> None:
    assert [row["id"] for row in records(whole)] == items.read(open_corpus(str(corpus)), SPLITS, 2).texts("id")
    found = results(whole)
    assert found["items"]["rows"] == ROWS
    assert found["about"]["corpus"] == found["corpus"]["fingerprint"]
    assert found["about"]["protocol"] == "prompted"
    assert found["about"]["generation"]["max_new_tokens"] == 6
    assert len(found["about"]["model"]["weights"]) == 64
    assert set(found["about"]) == STATED
    lines = (whole / "answers.jsonl").read_bytes().splitlines()
    assert len(lines) == ROWS
    assert all(row["prompt_tokens"] > 0 and row["ended"] for row in records(whole))


@pytest.mark.parametrize("batch", [1, 4])
def test_the_batch_changes_nothing(batch: int, run: Path, corpus: Path, whole: Path, tmp_path: Path) -> None:
    assert evaluate(run, corpus, tmp_path / "out", "--batch", str(batch)).exit_code == 0
    assert records(tmp_path / "out") == records(whole)
    assert results(tmp_path / "out")["answers"] == results(whole)["answers"]


@pytest.mark.parametrize("share", [0.0, 0.35, 0.99])
def test_a_dead_process_is_continued(share: float, run: Path, corpus: Path, whole: Path, tmp_path: Path) -> None:
    """Whenever a process is killed, it leaves a part of the file of answers, the last line perhaps unfinished."""
    out = tmp_path / "out"
    out.mkdir()
    content = (whole / "answers.jsonl").read_bytes()
    (out / "asking.json").write_bytes((whole / "asking.json").read_bytes())
    (out / "answers.jsonl").write_bytes(content[: int(share * len(content))])
    kept = content[: int(share * len(content))].count(b"\n")
    done = evaluate(run, corpus, out)
    assert done.exit_code == 0, done.output
    assert f"asked: {ROWS - kept} rows in " in done.stderr
    assert records(out) == records(whole)
    assert (out / "answers.jsonl").read_bytes().splitlines()[:kept] == content.splitlines()[:kept]
    assert (out / "answers.jsonl").read_bytes().count(b"\n") == ROWS


def test_nothing_is_asked_again(run: Path, corpus: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (whole / "results.json").read_bytes()
    monkeypatch.setattr("trainer.evaluation.asking.model._opened", None)
    assert evaluate(run, corpus, whole).exit_code == 0
    assert (whole / "results.json").read_bytes() == before


def test_answers_of_another_model_are_not_continued(corpus: Path, whole: Path, tmp_path: Path) -> None:
    done = evaluate(made(tmp_path / "other", corpus, 1), corpus, whole)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {whole}: answers of another evaluation (model was {{'weights': '")
    assert done.stderr.endswith("); name another folder, or delete this one.\n")
    assert results(whole)["items"]["rows"] == ROWS


def test_another_protocol_is_another_evaluation(run: Path, corpus: Path, whole: Path) -> None:
    done = evaluate(run, corpus, whole, "--protocol", "direct")
    sentence = "(protocol was 'prompted' and is 'direct'); name another folder, or delete this one."
    assert (done.exit_code, done.stderr) == (1, f"Error: {whole}: answers of another evaluation {sentence}\n")


def test_answers_to_questions_of_another_version_are_not_continued(
    run: Path, corpus: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = made_with()
    monkeypatch.setattr("trainer.evaluation.asking.questions.crops_turn", "{} <image>".format)
    changed = made_with()
    assert changed["vpt-data"] == known["vpt-data"] == results(whole)["versions"]["vpt-data"]
    done = evaluate(run, corpus, whole)
    sentence = f"(questions was {known!r} and is {changed!r}); name another folder, or delete this one."
    assert (done.exit_code, done.stderr) == (1, f"Error: {whole}: answers of another evaluation {sentence}\n")


def test_another_version_of_torch_is_stated_and_goes_on(
    run: Path, corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    with_before = results(whole)["about"]["asked_with"]
    assert with_before == {"device": "cpu"} | versions("torch", "transformers", "tokenizers", "Pillow")
    monkeypatch.setattr("trainer.evaluation.asking.model.versions", lambda *names: dict.fromkeys(names, "0.1"))
    monkeypatch.setattr("trainer.evaluation.asking.model._opened", None)
    assert evaluate(run, corpus, tmp_path / "out").exit_code == 0
    assert results(tmp_path / "out")["about"]["asked_with"]["torch"] == "0.1"


def test_the_file_of_answers_can_be_scored_alone(corpus: Path, whole: Path, tmp_path: Path) -> None:
    given = ["--predictions", whole / "answers.jsonl", "--data", corpus, "--out", tmp_path / "out", *ASKED]
    done = CliRunner().invoke(main, [str(argument) for argument in given])
    assert done.exit_code == 0, done.output
    assert records(tmp_path / "out") == records(whole)


def test_the_file_of_answers_of_a_model_with_another_grid_can_be_scored_alone(
    run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("trainer.evaluation.asking.model.grid", lambda source: 16)
        assert evaluate(run, corpus, tmp_path / "asked").exit_code == 0
    file = str(tmp_path / "asked" / "answers.jsonl")
    given = ["--predictions", file, "--data", str(corpus), "--out", str(tmp_path / "scored"), *ASKED]
    assert CliRunner().invoke(main, given).exit_code == 0
    one, other = (pq.read_table(tmp_path / name / "records.parquet") for name in ("asked", "scored"))
    assert one.equals(other)
    assert one["gold_iou"].null_count < one.num_rows


def test_an_image_that_is_missing_is_a_fault_of_its_row(
    run: Path, sample_root: Path, whole: Path, tmp_path: Path
) -> None:
    corpus = end_to_end.build("sample_eval", sample_root, tmp_path / "corpus")
    done = evaluate(run, corpus, tmp_path / "out")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.endswith(" is not in the shard; give the raw root that holds it.\n")
    raw = tmp_path / "raw"
    shutil.copytree(sample_root, raw)
    asked = items.read(open_corpus(str(corpus)), SPLITS, 2)
    lost = next(row for row in open_corpus(str(corpus)).rows() if row["id"] == asked.texts("id")[0])
    (raw / lost["images"][0]["path"]).unlink()
    done = evaluate(run, corpus, tmp_path / "out", "--raw", str(raw))
    assert done.exit_code == 0, done.output
    first, *others = records(tmp_path / "out")
    assert (first["ended"], first["answer"], first["score"]) == ("fault", None, 0.0)
    assert first["fault"].startswith("missing_image: ")
    assert [row for row in records(whole) if row["id"] in {other["id"] for other in others}] == others
    # The image is there again: only its row is asked again.
    done = evaluate(run, corpus, tmp_path / "out", "--raw", str(sample_root))
    assert "asked: 1 rows in " in done.stderr
    assert records(tmp_path / "out") == records(whole)
    assert (tmp_path / "out" / "answers.jsonl").read_bytes().count(b"\n") == ROWS


def test_a_start_that_failed_blocks_nothing(tmp_path: Path) -> None:
    folder.Answers(tmp_path / "out", {"model": "one"})
    other = folder.Answers(tmp_path / "out", {"model": "other"})
    with other.adding() as file:
        other.add(file, Prediction(id="a", answer="x"))
    with pytest.raises(OutputError, match=r"answers of another evaluation \(model was 'other' and is 'one'\)"):
        folder.Answers(tmp_path / "out", {"model": "one"})


def test_the_folder_is_named_after_the_whole_name_of_the_run(
    run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "qwen2.5-vl")
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "qwen2.5-vl").touch()
    done = CliRunner().invoke(main, ["--checkpoint", "qwen2.5-vl", "--data", str(corpus)])
    assert done.stderr == "Error: evaluations/qwen2.5-vl: is a file; name a folder.\n"


def test_what_fails_while_answers_are_made_is_no_fault_of_the_file(tmp_path: Path) -> None:
    answers = folder.Answers(tmp_path / "out", {})
    with pytest.raises(ConnectionError, match=r"^gone$"), answers.adding():
        raise ConnectionError("gone")


def test_nothing_is_read_after_the_last_row_that_is_asked(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_corpus(str(corpus))
    first = items.read(opened, ["POPE_action_test"], 1).texts("id")

    def rows(*given: Any) -> Iterator[dict[str, Any]]:
        yield next(row for row in end_to_end.rows(corpus) if row["id"] == first[0])
        pytest.fail("the next row was read")

    monkeypatch.setattr("vpt_data.corpus.reader.Corpus.rows", rows)
    assert len(list(questions(opened, {"POPE_action_test": first}, "free"))) == 1


def test_a_configuration_is_known_by_what_it_holds(run: Path, tmp_path: Path) -> None:
    def known(text: str) -> dict[str, str]:
        (tmp_path / "own.toml").write_text(text)
        weights = next(run.glob("step-*"))
        return identity(Source(weights, str(tmp_path / "own.toml"), None, "free", 6, 0, None, 1, 1, "cpu", "float32"))

    first = known("[model]\nlongest = 112\n")
    assert known("[model]\nlongest = 224\n")["config"] != first["config"]
    assert known("# The same.\n[model]\nlongest = 112\n") == first


def test_prompted_rows_end_with_the_sentence_for_the_look_that_is_expected(corpus: Path) -> None:
    opened = open_corpus(str(corpus))
    asked = items.read(opened, (), 3)
    by_id = dict(zip(asked.texts("id"), asked.texts("expected"), strict=True))
    wanted = asked.by_split(by_id)
    sentences = {"region": prompts.REGION_PROMPT, "reencode": prompts.ACTION_PROMPT}
    free = {row["id"]: row for row in questions(opened, wanted, "free")}
    for row in questions(opened, wanted, "prompted"):
        [question] = [message["content"] for message in row["messages"]]
        [plain] = [message["content"] for message in free[row["id"]]["messages"]]
        separator = "\n" if row["source"] == "llava" else " \n"
        assert question == plain + separator + sentences[by_id[row["id"]]]
    assert len(free) == len(by_id)


def test_the_protocol_of_the_paper_sets_all_that_is_not_given(run: Path, corpus: Path, tmp_path: Path) -> None:
    done = evaluate(run, corpus, tmp_path / "out", "--protocol", "paper")
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")
    assert (found["about"]["protocol"], found["settings"]["as_published"]) == ("paper", True)
    asked = {"max_actions": 1, "as_published": True, "expand": 1, "max_new_tokens": 6, "temperature": 0.0}
    assert asked.items() <= found["about"]["generation"].items()
    # What is cut is the answer there, and here none.
    assert any(row["ended"] == "token_limit" and row["answer"] for row in records(tmp_path / "out"))


def test_pictures_can_be_smaller_than_in_training(run: Path, corpus: Path, whole: Path, tmp_path: Path) -> None:
    done = evaluate(run, corpus, tmp_path / "out", "--longest", "56")
    assert done.exit_code == 0, done.output
    assert (results(whole)["about"]["pixels"], results(tmp_path / "out")["about"]["pixels"]) == (112, 56)
    smaller, larger = (pq.read_table(out / "records.parquet")["prompt_tokens"] for out in (tmp_path / "out", whole))
    assert sum(smaller.to_pylist()) < sum(larger.to_pylist())
    done = evaluate(run, corpus, tmp_path / "other", "--longest", "8")
    assert (done.exit_code, done.stderr) == (2, "Error: vision.longest is 8 pixels, expected 28 to 5600\n")


def test_direct_rows_may_not_look() -> None:
    assert decoding("direct", expand=1).max_actions == 0
    assert decoding("free", expand=1).max_actions == 2


def test_wrong_usage(run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def error(*arguments: str | Path) -> str:
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert (done.exit_code, done.stdout) == (2, "")
        return done.stderr

    assert error("--checkpoint", run, "--predictions", "x") == (
        "Error: Give one of --predictions, --checkpoint, --weights and --server.\n"
    )
    assert error("--checkpoint", run, "--about", "model=mine") == (
        "Error: --about model: an evaluation that asks a model states it by itself; use another name.\n"
    )
    assert error("--weights", run) == "Error: Give --weights PATH together with --config NAME.\n"
    assert error("--checkpoint", run, "--data", corpus, "--out", tmp_path / "raw", "--raw", tmp_path / "no") == (
        f"Error: {tmp_path / 'no'}: no such folder; give the raw root that holds the images of these rows.\n"
    )
    # What was wrong with the command leaves nothing that a corrected one would stumble over.
    weights = str(next(run.glob("step-*")))
    named = error("--weights", weights, "--config", "vpt_2b_dinoo", "--data", corpus, "--out", tmp_path / "named")
    assert named.startswith("Error: Unknown configuration 'vpt_2b_dinoo'; did you mean ")
    assert error("--checkpoint", run, "--data", corpus, "--out", tmp_path / "named", "--device", "gpu").startswith(
        "Error: --device gpu: torch cannot use it here ("
    )
    assert not (tmp_path / "named").exists()
    assert error("--checkpoint", tmp_path, "--data", corpus) == (
        f"Error: {tmp_path}: holds no checkpoint; give the --out of a run, or weights.\n"
    )
