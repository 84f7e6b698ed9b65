"""No process of a loader outlives its program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loaders import talks, tokenizer, write_shards

from trainer.data.loader import Settings

torch.set_num_threads(1)
# Python 3.12 and later warn that a process with threads forks; torch's loaders do so everywhere.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

SMALL = Settings(rows=24, tokens=512, window=40)


PROGRAM = """
import sys, time
sys.path.insert(0, {root!r})
from tokenizers import Tokenizer
from trainer.data.corpus import open_corpus
from trainer.data.loader import Loader, Settings
from trainer.data.encode import RowEncoder
from trainer.data.vision import Vision
encoder = RowEncoder(Tokenizer.from_file({words!r}), Vision(), cutoff=512)
reader = Loader(open_corpus({corpus!r}), encoder, Settings(rows=8, tokens=512, workers=2, epochs=10**6))
for number, micro in enumerate(reader):
    if number == 5:
        print("running", flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program in the middle of an epoch, with its worker processes, as a group of processes."""
    corpus, words = write_shards(tmp_path / "shards", talks(60)), tmp_path / "words.json"
    tokenizer().save(str(words))
    code = PROGRAM.format(root=str(Path(__file__).parents[2]), corpus=str(corpus), words=str(words))
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stdout is not None and program.stdout.readline() == "running\n"
    yield program
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.communicate()


def gone(group: int, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("interrupt_all", [True, False])
def test_an_interrupt_leaves_no_process(running: subprocess.Popen[str], interrupt_all: bool) -> None:
    (os.killpg if interrupt_all else os.kill)(running.pid, signal.SIGINT)
    assert running.wait(30) in (-signal.SIGINT, 1, 130)
    assert gone(running.pid, 20)


def test_a_killed_program_leaves_no_process(running: subprocess.Popen[str]) -> None:
    running.kill()
    running.wait()
    assert gone(running.pid, 30)
