"""A damaged run is named in one sentence, by both commands; one that needs nothing more says so."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from trainer import generate, run
from trainer.model.weights import read_weights
from trainer.training import setup
from trainer.training.run_folder import read_metrics
from vpt_data.errors import CorpusError

COPY = "put back a copy of it, or train on from the weights in a new run with --set model.start=RUN.\n"


def start(*arguments: str) -> Result:
    found = CliRunner().invoke(run.main, arguments)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def small(corpus: Path, out: str) -> list[str]:
    values = ["optim.steps=3", "data.rows=4", "data.tokens=2048", "run.save_every=1", "run.keep=2"]
    return ["--data", str(corpus), "--out", out, *(word for value in values for word in ("--set", value))]


@pytest.fixture(scope="module")
def whole(embedded_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    out = tmp_path_factory.mktemp("damaged") / "run"
    assert start(*small(embedded_corpus, str(out))).exit_code == 0
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, by a short path: `mine/tokenizer` could be a name on the Hub."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "mine")
    Image.new("RGB", (64, 48)).save("image.png")
    return Path("mine")


def resumed(out: Path) -> Result:
    return start("--out", str(out), "--resume")


def asked(checkpoint: Path) -> Result:
    about = ["--image", "image.png", "--question", "What?", "--max-new-tokens", "2"]
    found = CliRunner().invoke(generate.main, ["--checkpoint", str(checkpoint), *about])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def broken(path: Path) -> None:
    path.write_text('{"model": ')


MISSING, CUT = "No such file or directory", "Expecting value"


@pytest.mark.parametrize("command", [resumed, asked])
@pytest.mark.parametrize(
    ("part", "file", "damage", "reason"),
    [
        ("config.json", "", broken, CUT),
        ("config.json", "", Path.unlink, MISSING),
        ("config.json", "", lambda path: path.write_text("[]"), "not a JSON object"),
        ("tokenizer", "/tokenizer.json", shutil.rmtree, MISSING),
        ("tokenizer/tokenizer.json", "", Path.unlink, MISSING),
        ("tokenizer/tokenizer.json", "", broken, CUT),
        ("tokenizer/tokenizer_config.json", "/..", lambda path: path.write_text("null"), "'NoneType' object has no"),
        ("vlm", "/config.json", shutil.rmtree, MISSING),
        ("vlm/config.json", "", broken, CUT),
        ("vlm/config.json", "/..", lambda path: path.write_text("{}"), "Unrecognized model in "),
        ("dino", "/config.json", shutil.rmtree, MISSING),
        ("dino/config.json", "", lambda path: path.write_bytes(b"\xff"), "'utf-8' codec can't decode byte"),
    ],
)
def test_a_part_that_only_a_copy_brings_back(
    command: Callable[[Path], Result], part: str, file: str, damage: Callable[[Path], Any], reason: str, copy: Path
) -> None:
    damage(copy / part)
    found = command(copy)
    named = (copy / part).parent if file == "/.." else Path(f"{copy / part}{file}")
    assert found.exit_code == 1
    assert found.stderr.startswith(f"Error: {named}: cannot be read ({reason}")
    assert found.stderr.endswith(f"); {COPY}")
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [resumed, asked])
def test_weights_that_were_cut_off(command: Callable[[Path], Result], copy: Path) -> None:
    cut(copy / "step-0000003" / "model.safetensors")
    found = command(copy)
    sentence = (
        "Error: mine/step-0000003/model.safetensors: not a whole file of weights (Error while deserializing header: "
        "incomplete metadata, file not fully covered); remove mine/step-0000003 to use the checkpoint before it.\n"
    )
    assert (found.exit_code, found.stderr) == (1, sentence)
    shutil.rmtree(copy / "step-0000003")
    assert command(copy).exit_code == 0, "the sentence is true"


def test_the_only_checkpoint_is_not_to_be_removed(copy: Path) -> None:
    shutil.rmtree(copy / "step-0000002")
    (copy / "step-0000003" / "state.json").write_bytes(b"")
    sentence = (
        "(Expecting value: line 1 column 1 (char 0)); put back a copy of it, or begin a new run with its weights: "
    )
    assert resumed(copy).stderr.endswith(f"{sentence}--set model.start=mine/step-0000003.\n")
    cut(copy / "step-0000003" / "model.safetensors")
    assert asked(copy).stderr.endswith("; copy or download it again.\n")


def test_published_weights_that_were_cut_off(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(
            CorpusError, match=rf"{name}: not a whole file of weights \(.+\); copy or download it again"
        ):
            list(read_weights(tmp_path / name))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("optimizer.pt", b"", "EOFError"),
        ("optimizer.pt", b"PK\x03\x04", "PytorchStreamReader failed"),
        ("optimizer.pt", b"hello", ""),
        ("state.json", b'{"step": ', "Expecting value"),
    ],
)
def test_a_checkpoint_that_is_not_whole(file: str, content: bytes, reason: str, copy: Path) -> None:
    (copy / "step-0000003" / file).write_bytes(content)
    found = resumed(copy)
    assert found.exit_code == 1
    last = found.stderr.splitlines()[-1]
    assert last.startswith(f"Error: mine/step-0000003: not a whole checkpoint ({reason}")
    assert last.endswith("); remove it to continue from the one before.")


def test_a_checkpoint_that_is_not_there(copy: Path) -> None:
    found = asked(copy / "step-0000009")
    assert (found.exit_code, found.stderr) == (
        2,
        "Error: mine: no checkpoint step-0000009 in this folder; give the --out of a run.\n",
    )


def test_a_configuration_without_a_checkpoint_is_no_run(copy: Path) -> None:
    for step in copy.glob("step-*"):
        shutil.rmtree(step)
    cut(copy / "config.json")
    found = resumed(copy)
    sentence = "Error: mine: no run to continue; leave out --resume, or give the --out of the run.\n"
    assert (found.exit_code, found.stderr) == (2, sentence)


@pytest.mark.parametrize("line", [b'{"step": 3, "lo\n', b"\0\0\0\n", b"\xff\n", b"null\n", b'{"step": 3'])
def test_the_last_line_of_the_log_is_cut_off_if_it_is_damaged(line: bytes, copy: Path) -> None:
    log = copy / "metrics.jsonl"
    good = log.read_bytes()
    log.write_bytes(good + line)
    assert resumed(copy).exit_code == 0
    assert log.read_bytes() == good


def test_a_damaged_line_in_the_middle_of_the_log_is_named(copy: Path) -> None:
    lines = (copy / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_bytes(b"".join([lines[0], lines[1][:9], b"\n", lines[2]]))
    found = resumed(copy)
    sentence = "Error: mine/metrics.jsonl: line 2 is not a step in JSON; remove this line and continue with --resume."
    assert (found.exit_code, found.stderr.splitlines()[-1]) == (1, sentence)
    (copy / "metrics.jsonl").write_bytes(b"".join([lines[0], lines[2]]))
    assert resumed(copy).exit_code == 0
    assert [entry["step"] for entry in read_metrics(copy)] == [1, 3]


def test_a_finished_run_has_nothing_left_to_do(copy: Path) -> None:
    log = copy / "metrics.jsonl"
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    found = resumed(copy)
    begin = "Nothing left to train: mine has all its 3 steps already"
    assert found.exit_code == 0
    assert found.stdout.splitlines()[0] == f"{begin}, loss {sum(losses) / 3:.3f} (mean of the last ten)"
    log.unlink()
    assert resumed(copy).stdout.splitlines()[0] == begin


def test_the_loss_at_the_end_counts_the_steps_before_a_break(copy: Path) -> None:
    expected = resumed(copy).stdout.partition(", loss ")[2]
    shutil.rmtree(copy / "step-0000003")
    assert resumed(copy).stdout == f"Trained: mine  3 steps, loss {expected}"


def interrupt(*arguments: Any, **options: Any) -> Any:
    signal.raise_signal(signal.SIGINT)


def test_what_to_do_after_an_interruption(
    embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = small(embedded_corpus, str(tmp_path / "run"))
    for name in ("make_tokenizer", "make_loader"):  # before and after the folder of the run is there
        with monkeypatch.context() as patch:
            patch.setattr(setup, name, interrupt)
            found = start(*line)
        assert (found.exit_code, found.stderr.splitlines()[-1]) == (
            130,
            "Error: Interrupted before the first checkpoint; run the same command again to start over.",
        )
    assert start(*line).exit_code == 0, "the sentence is true"
    shutil.rmtree(tmp_path / "run" / "step-0000003")
    with monkeypatch.context() as patch:
        patch.setattr(setup, "load_run", interrupt)
        found = start(*line, "--resume")
    assert (found.exit_code, found.stderr) == (
        130,
        "Error: Interrupted before the step was done; add --resume to continue from the last checkpoint.\n",
    )
    assert start(*line, "--resume").exit_code == 0
