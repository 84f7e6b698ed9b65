"""Tasks in this process, or in a pool of processes on this machine."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process

import pyarrow as pa

from vpt_data import keep_memory
from vpt_data.errors import VptDataError
from vpt_data.pipeline.engines.task import Task, perform, perform_here, progress, undone


class Local:
    """This process, or a pool of processes on this machine."""

    seals = True

    def __init__(self, pool: Executor | None, width: int = 1) -> None:
        self._pool = pool
        self.width = width

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        """Run the tasks that are not done yet."""
        todo = undone(tasks)
        with progress(tasks, todo, label) as bar:
            # A single task is done here: workers that are just starting, or that would copy its inputs, gain nothing.
            if self._pool is None or len(todo) == 1:
                for task in todo:
                    perform_here(task, bar)
                return
            try:
                with _interrupts_later():
                    futures = {
                        self._pool.submit(perform, pa.__version__, task.call, task.arguments): task for task in todo
                    }
                for future in as_completed(futures):
                    future.result()
                    bar.update(futures[future].size)
            except BrokenProcessPool as error:
                raise VptDataError(
                    "A worker process was killed, perhaps because memory ran out; run the same command again to "
                    "continue, with fewer --workers if memory is short."
                ) from error

    run_share = run_all


@contextmanager
def pool(workers: int, preload: Sequence[str]) -> Iterator[Executor | None]:
    """A process pool, or None to work in this process."""
    if workers <= 1:
        yield None
        return
    others = set(active_children())
    keep_memory()
    made = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_parent)
    try:
        with _interrupts_later():
            # Each submission starts a process: they import what they need while the first input is read.
            for _ in range(workers):
                made.submit(_import, tuple(preload))
        yield made
    except BaseException:
        for worker in set(active_children()) - others:
            worker.kill()  # they let SIGTERM pass by
        made.shutdown(wait=True, cancel_futures=True)
        raise
    made.shutdown()


def _import(modules: Sequence[str]) -> None:
    """In a worker: import what its tasks need."""
    for module in modules:
        importlib.import_module(module)


def _follow_parent() -> None:
    """In a worker: end with the process that started it, so that no orphan writes on behind a rerun."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started here never see Ctrl-C or SIGTERM, which the parent handles; ours arrives at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
