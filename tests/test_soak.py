"""A build killed with SIGKILL at random moments: the rerun makes the same files and leaves nothing else.

Three rounds here, 100 with VPT_SOAK=1 (`make soak`), some of several kills in a row. Each round is made from
its number: run it again with -k. When a kill strikes depends on the machine; what comes out may not.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from random import Random
from subprocess import Popen

import pytest
from helpers import end_to_end
from helpers.command import run
from helpers.processes import arguments, await_none, finish, start
from helpers.soak import SOAK

from vpt_data.synthetic import write_sample

ROUNDS, RANKED = (80, 20) if SOAK else (2, 1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("soak") / "raw"
    write_sample(root, rows=40)
    return root


@pytest.fixture(scope="module")
def undisturbed(raw: Path) -> Path:
    return end_to_end.build("sample", raw, raw.parent / "undisturbed", mode="embed")


@pytest.fixture(scope="module")
def seconds(raw: Path, undisturbed: Path) -> float:
    """How long a build with two workers takes, from the start of the process to its end."""
    out, began = raw.parent / "timed", time.monotonic()
    process = start(raw, out, 2)
    process.communicate()
    took = time.monotonic() - began
    assert process.returncode == 0
    assert end_to_end.contents(out) == end_to_end.contents(undisturbed)
    return took


def killed(process: Popen[str], delay: float, everyone: bool) -> None:
    """Kill a build after so many seconds, with its workers or without."""
    time.sleep(delay)
    if everyone:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()
    await_none(process.pid)


def aged(out: Path) -> None:
    """As if an hour had passed: what a killed rank was at is free for others."""
    for claim in (out / ".work").rglob("*.claim"):
        os.utime(claim, (time.time() - 3600,) * 2)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_at_any_moment(raw: Path, undisturbed: Path, seconds: float, tmp_path: Path, number: int) -> None:
    """One kill, or several in a row before a rerun comes to its end."""
    plan, out = Random(f"soak {number}"), tmp_path / "corpus"
    for _ in range(plan.choice((1, 1, 1, 2, 4))):
        workers = plan.choice((1, 2))
        delay, everyone = plan.uniform(0, seconds), plan.random() < 0.7
        killed(start(raw, out, workers), delay, everyone)
    finish(raw, out, undisturbed, plan.choice((1, 1, 2)))
    assert list(tmp_path.iterdir()) == [out]
    shutil.rmtree(out)


@pytest.mark.parametrize("number", range(RANKED))
def test_a_killed_rank_is_run_again(
    raw: Path,
    undisturbed: Path,
    seconds: float,
    tmp_path: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ranks one after the other, either or both killed at first, then the seal, killed at first as well."""
    plan, out = Random(f"ranks {number}"), tmp_path / "corpus"
    monkeypatch.setenv("WORLD_SIZE", "2")
    steps = [("0", ("--engine", "ranks")), ("1", ("--engine", "ranks")), ("", ("--seal",))]
    struck = plan.choice(({0}, {1}, {0, 1}, {0, 1, 2}))
    for step, (rank, more) in enumerate(steps):
        monkeypatch.setenv("RANK", rank)
        if step in struck:
            killed(start(raw, out, 1, *more), plan.uniform(0, seconds), everyone=True)
            aged(out)
        result = run(*arguments(raw, out, 1), *more)
        assert (result.exit_code, result.exception) == (0, None), result.output
    assert end_to_end.contents(out) == end_to_end.contents(undisturbed)
    assert list(tmp_path.iterdir()) == [out]
    shutil.rmtree(out)
