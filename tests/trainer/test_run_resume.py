"""A run that is killed or interrupted goes on as if nothing had happened, also on another number of ranks."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.processes import await_none
from helpers.soak import some_of

from trainer.run import main
from trainer.training.run_folder import read_metrics

ROOT = Path(__file__).resolve().parents[2]
STEPS = 10


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    values = [f"optim.steps={STEPS}", "data.rows=12", "data.tokens=1024", "run.save_every=1", "run.ids=true", *more]
    sets = [word for value in values for word in ("--set", value)]
    return [sys.executable, "-m", "trainer.run", "--data", str(corpus), "--out", str(out), *sets]


def begin(line: list[str], world: int = 1) -> list[subprocess.Popen[str]]:
    """Ranks, each in a process group of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = []
    for rank in range(world):
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **{key: str(value) for key, value in where.items()}}
        process = subprocess.Popen(
            line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        found.append(process)
    return found


def finish(line: list[str], world: int = 1) -> None:
    ranks = begin(line, world)
    try:
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world, errors


def stop_at(step: int, line: list[str], out: Path, by: signal.Signals) -> int:
    """Start, send a signal once `step` is logged; the exit code."""
    [process] = begin(line)
    end = time.monotonic() + 120
    while len(read_metrics(out)) < step and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(by)
    process.communicate(timeout=60)
    return process.returncode


def train_here(line: list[str]) -> None:
    """The same in this process, which has imported everything already."""
    found = CliRunner().invoke(main, line[3:])
    assert found.exit_code == 0, found.output


@pytest.fixture(scope="module")
def whole(embedded_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_here(command(embedded_corpus, out))
    return read_metrics(out)


@pytest.fixture(scope="module")
def interrupted(embedded_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that Ctrl-C ended between its regular checkpoints; not to be changed."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    assert stop_at(3, command(embedded_corpus, out, "run.save_every=100"), out, signal.SIGINT) == 130
    return out


def curve(entries: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(entry["loss"], entry["grad_norm"]) for entry in entries]


def test_a_scheduler_that_signals_every_process_gets_a_checkpoint(
    whole: list[dict[str, Any]], embedded_corpus: Path, tmp_path: Path
) -> None:
    """SIGTERM to the workers that read as well, and twice: the step at hand is finished and saved."""
    out = tmp_path / "run"
    line = command(embedded_corpus, out, "run.save_every=100", "data.workers=2")
    [process] = begin(line)
    end = time.monotonic() + 120
    while len(read_metrics(out)) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    process.terminate()
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert stderr.endswith("Error: Interrupted; a checkpoint is written, add --resume to continue.\n")
    await_none(process.pid)
    train_here([*line, "--resume"])
    assert curve(read_metrics(out)) == curve(whole)


KILLED = """
import os, signal, sys, torch
from trainer.run import main

saves = 0

def half(moments, file):
    global saves
    saves += 1
    if saves == last:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(moments, file)

real, torch.save, last = torch.save, half, int(sys.argv.pop())
main()
"""


def test_after_a_kill_amid_a_checkpoint_the_curve_is_the_same_to_the_bit(
    whole: list[dict[str, Any]], embedded_corpus: Path, tmp_path: Path
) -> None:
    out, step = tmp_path / "run", random.randrange(3, STEPS - 1)
    line = command(embedded_corpus, out)
    [process] = begin([sys.executable, "-c", KILLED, *line[3:], str(step)])
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert (out / ".checkpoint.partial" / "optimizer.pt").read_bytes() == b"half"
    assert [path.name for path in out.glob("step-*")] == [f"step-{step - 1:07d}"]
    train_here([*line, "--resume"])
    found = read_metrics(out)
    assert curve(found) == curve(whole), f"killed at step {step}"
    assert [entry["ids"] for entry in found] == [entry["ids"] for entry in whole]


@pytest.mark.parametrize("parallel", some_of(["ddp", "fsdp2"], 1))
def test_an_interrupted_run_goes_on_with_two_ranks_and_the_same_rows(
    parallel: str, whole: list[dict[str, Any]], interrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    before = read_metrics(out)
    assert 3 <= len(before) < STEPS
    assert curve(before) == curve(whole[: len(before)])
    again = [sys.executable, "-m", "trainer.run", "--out", str(out), "--resume"]
    finish([*again, "--set", f"run.parallel={parallel}"], world=2)
    found = read_metrics(out)
    assert [sorted(entry["ids"]) for entry in found] == [sorted(entry["ids"]) for entry in whole]
    assert [entry["loss"] for entry in found] == pytest.approx([entry["loss"] for entry in whole], rel=1e-4)
