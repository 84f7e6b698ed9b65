"""Tasks shared among ranks: independent processes, of Slurm for instance, that see one output folder."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from vpt_data import store
from vpt_data.errors import UsageError
from vpt_data.pipeline.engines.local import Local
from vpt_data.pipeline.engines.task import Task, undone
from vpt_data.store import AnyPath


class Ranks:
    """One of several independent processes that share the output folder and never talk to each other.

    Before all go on, a rank also does what no other rank is at work on, so that it never waits for one that has
    not been started; the shards are distributed by number.
    """

    seals = False

    def __init__(self, rank: int, world: int, local: Local, wait: float = 1.0, stale: float = 60.0) -> None:
        self._rank, self._world, self._local = rank, world, local
        self._wait, self._stale = wait, stale
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        """Do own tasks first, then those that nobody claims, until all are done."""
        # Own tasks, then those of the next rank, and so on: ranks that help out do not all begin with the same task.
        order = sorted(range(len(tasks)), key=lambda number: (number - self._rank) % self._world)
        while left := undone(tasks[number] for number in order):
            # Some at a time, since the folder is listed for each batch; ever fewer, so that all end at once.
            batch = max(self._local.width, len(left) // (4 * self._world))
            free = list(islice((task for task in left if self._is_free(task)), batch))
            if not free:
                time.sleep(self._wait)
                continue
            with self._claimed(free):
                self._local.run_all(free, label)

    def run_share(self, tasks: Sequence[Task], label: str) -> None:
        """Do every `world`-th task."""
        self._local.run_all([task for number, task in enumerate(tasks) if number % self._world == self._rank], label)

    def _is_free(self, task: Task) -> bool:
        """Whether nobody has claimed the task, or the process that did has died or has not renewed it for long."""
        claim = _claim_of(task)
        try:
            age, holder = time.time() - claim.stat().st_mtime_ns / 1e9, claim.read_bytes().decode()
        except FileNotFoundError:
            return True
        host, _, process = holder.rpartition(":")
        return age > self._stale or (host == socket.gethostname() and process.isdigit() and not _runs(int(process)))

    @contextmanager
    def _claimed(self, tasks: list[Task]) -> Iterator[None]:
        """Show the others what we are at. Two ranks may begin the same at once: both do it, and both are right."""
        over = threading.Event()

        def claim() -> None:
            for task in tasks:
                store.write(_claim_of(task), self._name.encode())

        def beat() -> None:
            while not over.wait(self._stale / 4):
                claim()

        heart = threading.Thread(target=beat, daemon=True)
        try:
            claim()
            heart.start()
            yield
        finally:
            over.set()
            if heart.is_alive():
                heart.join()
            for task in tasks:
                _claim_of(task).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _claim_of(task: Task) -> AnyPath:
    return task.done.with_name(f"{task.done.name}.claim")


def rank_of(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank and number of ranks, from RANK and WORLD_SIZE, or a Slurm array or job.

    >>> rank_of({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "8"})
    (3, 8)
    """
    ways = (
        ("RANK", "WORLD_SIZE", None),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
        ("SLURM_PROCID", "SLURM_NTASKS", None),
    )
    for rank_name, world_name, first_name in ways:
        if rank_name not in environment or world_name not in environment:
            continue
        try:
            first = int(environment.get(first_name, "0")) if first_name else 0
            rank, world = int(environment[rank_name]) - first, int(environment[world_name])
        except ValueError as error:
            raise UsageError(f"{rank_name} and {world_name} must be numbers ({error}).") from error
        if not 0 <= rank < world:
            raise UsageError(f"{rank_name}={rank} does not fit {world_name}={world}; ranks count from 0.")
        return rank, world
    raise UsageError(
        "--engine ranks finds no rank: set RANK and WORLD_SIZE, or start it from a Slurm array (SLURM_ARRAY_TASK_ID)."
    )
