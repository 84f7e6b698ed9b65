"""Tasks in this process, or in a pool of processes on this machine."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.sharedctypes import Synchronized
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from vpt_data import keep_memory
from vpt_data.errors import VptDataError
from vpt_data.pipeline.engines.task import Task, perform_in_parts, progress, undone

#: How often the bar follows what workers have done of their tasks, in seconds.
_EVERY = 0.5


class Pool(NamedTuple):
    """Processes on this machine, and how much they have done since they were started, in sizes of tasks."""

    executor: Executor
    done: Synchronized[int]


class Local:
    """This process, or a pool of processes on this machine."""

    seals = True

    def __init__(self, pool: Pool | None, width: int = 1) -> None:
        self._pool = pool
        self.width = width

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        """Run the tasks that are not done yet."""
        todo = undone(tasks)
        with progress(tasks, todo, label) as bar:
            # A single task is done here: workers that are just starting, or that would copy its inputs, gain nothing.
            if self._pool is None or len(todo) == 1:
                for task in todo:
                    perform_in_parts(pa.__version__, task, bar.update)
                return
            try:
                _run(self._pool, todo, bar)
            except BrokenProcessPool as error:
                raise VptDataError(
                    "A worker process was killed, perhaps because memory ran out; run the same command again to "
                    "continue, with fewer --workers if memory is short."
                ) from error

    run_share = run_all


def _run(pool: Pool, tasks: Sequence[Task], bar: tqdm[Any]) -> None:
    """Have the pool do the tasks; the bar follows within them."""
    ready: SimpleQueue[Future[None]] = SimpleQueue()
    done = pool.done.get_obj()  # read without its lock, which a worker that is killed could hold
    shown = done.value
    with _interrupts_later():
        for task in tasks:
            pool.executor.submit(_perform, pa.__version__, task).add_done_callback(ready.put)
    left = len(tasks)
    while left:
        with suppress(Empty):
            ready.get(timeout=_EVERY).result()
            left -= 1
        now = done.value  # once: workers go on while the bar is drawn
        bar.update(now - shown)
        shown = now


@contextmanager
def pool(workers: int, preload: Sequence[str]) -> Iterator[Pool | None]:
    """A process pool, or None to work in this process."""
    if workers <= 1:
        yield None
        return
    others = set(active_children())
    keep_memory()
    context = get_context("spawn")
    done = context.Value("q", 0)
    made = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(done,))
    try:
        with _interrupts_later():
            # Each submission starts a process: they import what they need while the first input is read.
            for _ in range(workers):
                made.submit(_import, tuple(preload))
        yield Pool(made, done)
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


class _Worker:
    """What a worker knows of its pool."""

    done: Synchronized[int]


def _perform(version: str, task: Task) -> None:
    """In a worker: run a task."""

    def advance(part: int) -> None:
        with _Worker.done.get_lock():
            _Worker.done.value += part

    perform_in_parts(version, task, advance)


def _begin(done: Synchronized[int]) -> None:
    """In a worker: end with the process that started it, so that no orphan writes on behind a rerun."""
    _Worker.done = done
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started here never see Ctrl-C or SIGTERM, which the parent handles; ours arrives at the end.

    The mask alone is not enough: another thread (pyarrow has some) can receive the signal, and Python then runs the
    handler in this one, perhaps between the start of a process and the words it waits for.
    """
    both = (signal.SIGINT, signal.SIGTERM)
    handlers: dict[signal.Signals, Any] = {}
    came: list[int] = []
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, lambda seen, _: came.append(seen)) for number in both}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, both)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # one that waited arrives here, in our handler
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for seen in came[:1]:
            signal.raise_signal(seen)
