"""Whoever does the work, the files are the same; a rank that dies, waits or is misnamed harms nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from click.testing import Result
from helpers import end_to_end
from helpers.command import error, run
from helpers.processes import await_any
from helpers.soak import SOAK, some_of

from vpt_data import store
from vpt_data.errors import UsageError, VptDataError
from vpt_data.pipeline import output_folder
from vpt_data.pipeline.engines import task
from vpt_data.pipeline.engines.local import Local, pool
from vpt_data.pipeline.engines.ranks import Ranks, rank_of
from vpt_data.pipeline.engines.task import Task

#: What says elsewhere which rank this is.
UNSET: dict[str, str | None] = dict.fromkeys(
    ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_PROCID")
)


def arguments(raw: Path, out: Path) -> list[str]:
    options = ["--raw", str(raw), "--out", str(out), "--images", "embed", "--set", "shards=8"]
    return ["build", "--recipe", "sample", *options]


def start_rank(raw: Path, out: Path, rank: int, world: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vpt_data", *arguments(raw, out), "--engine", "ranks"]
    env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


def run_rank(raw: Path, out: Path, rank: int, world: int) -> Result:
    names = {**UNSET, "RANK": str(rank), "WORLD_SIZE": str(world)}
    result = run(*arguments(raw, out), "--engine", "ranks", **names)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert result.stdout.startswith(f"Shards written: {out}")
    return result


def seal(raw: Path, out: Path, local: Path) -> None:
    """Finish the corpus; what comes out is what one process makes, and nothing else is left."""
    sealed = run(*arguments(raw, out), "--seal")
    assert sealed.exit_code == 0, sealed.output
    assert end_to_end.contents(out) == end_to_end.contents(local)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "corpus"


@pytest.fixture(scope="module")
def local(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus that one process makes; not to be changed."""
    out = tmp_path_factory.mktemp("local") / "corpus"
    end_to_end.build("sample", sample_root, out, "shards=8", mode="embed")
    assert len(end_to_end.shards(out)) == 8
    return out


# The same files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", some_of([2, 3, 4], 1))
def test_any_number_of_workers(sample_root: Path, local: Path, out: Path, workers: int) -> None:
    end_to_end.build("sample", sample_root, out, "shards=8", mode="embed", workers=workers)
    assert end_to_end.contents(out) == end_to_end.contents(local)


@pytest.mark.parametrize("world", [1, 3, 7])
def test_ranks_one_after_another(sample_root: Path, local: Path, out: Path, world: int) -> None:
    for rank in reversed(range(world)):
        run_rank(sample_root, out, rank, world)
    seal(sample_root, out, local)


def test_ranks_at_once(sample_root: Path, local: Path, out: Path) -> None:
    world = 7 if SOAK else 3
    ranks = [start_rank(sample_root, out, rank, world) for rank in range(world)]
    output = [rank.communicate() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world, output
    assert not list(out.rglob("*.claim"))
    seal(sample_root, out, local)


def test_ranks_of_a_slurm_array(sample_root: Path, local: Path, out: Path) -> None:
    for number in (5, 6, 7):
        slurm = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "5"}
        done = run(*arguments(sample_root, out), "--engine", "ranks", **{**UNSET, **slurm})
        assert done.exit_code == 0, done.output
        assert len(list((out / "data").iterdir())) == {5: 3, 6: 6, 7: 8}[number]
    seal(sample_root, out, local)


def test_another_number_of_ranks_goes_on(sample_root: Path, local: Path, out: Path) -> None:
    run_rank(sample_root, out, 2, 3)
    run_rank(sample_root, out, 1, 2)
    run_rank(sample_root, out, 0, 1)
    seal(sample_root, out, local)


def test_a_local_build_goes_on_with_what_ranks_left(sample_root: Path, local: Path, out: Path) -> None:
    run_rank(sample_root, out, 1, 3)
    before = {path: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    assert len(before) == 3
    end_to_end.build("sample", sample_root, out, "shards=8", mode="embed")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert end_to_end.contents(out) == end_to_end.contents(local)


# Ends before the end ------------------------------------------------------------------------------------------


def test_sealing_too_early_is_one_sentence_and_loses_nothing(sample_root: Path, local: Path, out: Path) -> None:
    run_rank(sample_root, out, 0, 3)
    before = end_to_end.contents(out)
    assert error(*arguments(sample_root, out), "--seal") == (
        f"{out}: 5 of 8 blocks of shards are not written yet, the first is number 1; run all ranks to their end "
        "(a rank that died can be run again), then --seal."
    )
    assert end_to_end.contents(out) == before
    for rank in (1, 2):
        run_rank(sample_root, out, rank, 3)
    seal(sample_root, out, local)


def test_sealing_twice_confirms(sample_root: Path, out: Path, local: Path) -> None:
    run_rank(sample_root, out, 0, 1)
    seal(sample_root, out, local)
    again = run(*arguments(sample_root, out), "--seal")
    assert (again.exit_code, "Already built" in again.stdout) == (0, True)
    assert end_to_end.contents(out) == end_to_end.contents(local)


@pytest.mark.parametrize("moment", [".work/inputs/*.claim", "data/*.parquet*"])
def test_a_rank_that_was_killed_is_run_again(sample_root: Path, local: Path, out: Path, moment: str) -> None:
    rank = start_rank(sample_root, out, 0, 2)
    await_any(out, moment, rank)
    rank.kill()
    rank.communicate()
    assert rank.returncode == -signal.SIGKILL
    for claim in out.rglob("*.claim"):  # nobody waits a minute for it here
        os.utime(claim, (0, 0))
    for number in (1, 0):
        run_rank(sample_root, out, number, 2)
    seal(sample_root, out, local)


# Claims -------------------------------------------------------------------------------------------------------


class Work:
    """Tasks that write a file each and note who was at work."""

    def __init__(self, folder: Path, count: int) -> None:
        self.begun: list[int] = []
        self.tasks = [Task(self.do, (number,), folder / str(number)) for number in range(count)]
        self.folder = folder

    def do(self, number: int) -> None:
        self.begun.append(number)
        store.write(self.tasks[number].done, b"done")


def ranks(number: int, world: int, stale: float = 60.0) -> Ranks:
    return Ranks(number, world, Local(None), wait=0.01, stale=stale)


def together(work: Work, count: int) -> list[threading.Thread]:
    found = [threading.Thread(target=ranks(rank, count).run_all, args=(work.tasks, "work")) for rank in range(count)]
    for thread in found:
        thread.start()
    return found


def test_a_rank_does_its_own_tasks_first_and_then_those_of_ranks_that_never_came(tmp_path: Path) -> None:
    work = Work(tmp_path, 9)
    ranks(1, 3).run_all(work.tasks, "work")
    assert work.begun == [1, 4, 7, 2, 5, 8, 0, 3, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in range(9)]


def test_shards_are_distributed(tmp_path: Path) -> None:
    work = Work(tmp_path, 9)
    ranks(1, 4).run_share(work.tasks, "work")
    assert work.begun == [1, 5]


def test_what_another_is_at_is_left_to_it(tmp_path: Path) -> None:
    work, looked, naps = Work(tmp_path, 1), threading.Event(), []
    do = work.do

    class Nosy(Ranks):
        """Says so when it has found nothing to do."""

        def _is_free(self, task: Task) -> bool:
            naps.append(super()._is_free(task))
            if len(naps) > 1:
                looked.set()
            return naps[-1]

    def slow(number: int) -> None:
        other = threading.Thread(target=Nosy(1, 2, Local(None), wait=0.01).run_all, args=(work.tasks, "work"))
        other.start()
        assert looked.wait(30)
        do(number)

    work.tasks[0] = work.tasks[0]._replace(call=slow)
    before = set(threading.enumerate())
    ranks(0, 2).run_all(work.tasks, "work")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert (work.begun, set(naps)) == ([0], {False})


def test_a_claim_of_nobody_is_overruled(tmp_path: Path) -> None:
    work = Work(tmp_path, 1)
    claim = tmp_path / "0.claim"
    claim.write_text("somewhere:1")
    os.utime(claim, (time.time() - 61, time.time() - 61))
    ranks(0, 1).run_all(work.tasks, "work")
    assert (work.begun, [path.name for path in tmp_path.iterdir()]) == ([0], ["0"])


def test_a_long_task_stays_claimed(tmp_path: Path) -> None:
    """The claim is renewed four times before it is stale."""
    work, seen = Work(tmp_path, 1), []
    claim, do = tmp_path / "0.claim", work.do

    def long(number: int) -> None:
        began = claim.stat().st_mtime_ns
        deadline = time.monotonic() + 30
        while claim.stat().st_mtime_ns == began and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(claim.stat().st_mtime_ns > began)
        do(number)

    work.tasks[0] = work.tasks[0]._replace(call=long)
    ranks(0, 1, stale=0.2).run_all(work.tasks, "work")
    assert seen == [True]


def test_two_ranks_that_begin_the_same_task_are_both_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, both = Work(tmp_path, 1), threading.Barrier(2)
    do = work.do

    def at_once(number: int) -> None:
        both.wait(30)
        do(number)

    work.tasks[0] = work.tasks[0]._replace(call=at_once)
    monkeypatch.setattr(Ranks, "_is_free", lambda self, task: True)
    for thread in together(work, 2):
        thread.join(30)
    assert work.begun == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_a_claim_is_given_back_when_a_task_fails(tmp_path: Path) -> None:
    def fail() -> None:
        raise VptDataError("No.")

    with pytest.raises(VptDataError, match=r"No\."):
        ranks(0, 1).run_all([Task(fail, (), tmp_path / "0")], "work")
    assert list(tmp_path.iterdir()) == []


# Who is who ---------------------------------------------------------------------------------------------------

NO_RANK = "--engine ranks finds no rank: set RANK and WORLD_SIZE, or start it from a Slurm array (SLURM_ARRAY_TASK_ID)."


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, NO_RANK),
        ({"RANK": "0"}, NO_RANK),
        ({"WORLD_SIZE": "2"}, NO_RANK),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 does not fit WORLD_SIZE=2; ranks count from 0."),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 does not fit WORLD_SIZE=2; ranks count from 0."),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 does not fit WORLD_SIZE=0; ranks count from 0."),
        (
            {"RANK": "one", "WORLD_SIZE": "2"},
            "RANK and WORLD_SIZE must be numbers (invalid literal for int() with base 10: 'one').",
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "4"},
            "SLURM_ARRAY_TASK_ID=5 does not fit SLURM_ARRAY_TASK_COUNT=2; ranks count from 0.",
        ),
    ],
)
def test_a_misnamed_rank_is_one_sentence(sample_root: Path, out: Path, env: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        rank_of(env)
    assert str(caught.value) == sentence
    found = error(*arguments(sample_root, out), "--engine", "ranks", code=2, **{**UNSET, **env})
    assert found == sentence
    assert not out.exists()


@pytest.mark.parametrize(
    ("env", "rank"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "9"}, (1, 4)),
        ({"RANK": "1", "SLURM_PROCID": "2", "SLURM_NTASKS": "9"}, (2, 9)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 2)),
    ],
)
def test_where_a_rank_is_read_from(env: dict[str, str], rank: tuple[int, int]) -> None:
    assert rank_of(env) == rank


# Others in the folder, other versions -------------------------------------------------------------------------


def test_ranks_share_the_folder_and_nobody_else_may(sample_root: Path, out: Path) -> None:
    busy = f"{out}: another build is at work in this folder; wait for it or give another."
    with output_folder.held(out, together=True):
        run_rank(sample_root, out, 0, 2)
        assert error(*arguments(sample_root, out)) == busy
        assert error(*arguments(sample_root, out), "--seal") == busy
    with output_folder.held(out):
        names = {**UNSET, "RANK": "1", "WORLD_SIZE": "2"}
        assert error(*arguments(sample_root, out), "--engine", "ranks", **names) == busy  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [["--engine", "ranks"], ["--seal"], []])
def test_another_pyarrow_does_not_go_on(sample_root: Path, out: Path, more: list[str]) -> None:
    run_rank(sample_root, out, 0, 2)
    stamp = out / ".work/plan.json"
    plan = json.loads(stamp.read_bytes())
    ours = plan["pyarrow"]
    stamp.write_text(json.dumps({**plan, "pyarrow": "1.2.3"}))
    before = end_to_end.contents(out)
    names = {**UNSET, "RANK": "1", "WORLD_SIZE": "2"}
    assert error(*arguments(sample_root, out), *more, **names) == (  # type: ignore[arg-type]
        f"{out}: the build was begun with pyarrow 1.2.3, this is {ours}, and their bytes differ; install that "
        "version, or use --fresh to start over."
    )
    assert end_to_end.contents(out) == before


def test_a_worker_with_another_pyarrow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    monkeypatch.setattr("pyarrow.__version__", "26.0.0")
    with pytest.raises(VptDataError) as caught:
        task.perform("1.2.3", done.append, (1,))
    assert str(caught.value) == (
        "node7: this worker has pyarrow 26.0.0, the build was planned with 1.2.3, and their bytes differ; install "
        "the same version everywhere."
    )
    task.perform("26.0.0", done.append, (2,))
    assert done == [2]


def test_an_interrupt_that_another_thread_receives_waits_until_every_worker_has_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pyarrow has such threads. A worker whose start is cut off ends with a traceback beside the sentence."""
    started: list[object] = []
    ready = threading.Event()
    other = threading.Thread(target=ready.wait, daemon=True)
    other.start()

    def submit(*_: object) -> None:
        assert other.ident is not None
        signal.pthread_kill(other.ident, signal.SIGINT)
        time.sleep(0.05)
        started.append(1)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with pytest.raises(KeyboardInterrupt), pool(3, []):
        pytest.fail("the interrupt was lost")
    ready.set()
    other.join()
    assert len(started) == 3
