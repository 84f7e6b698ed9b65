"""Who does the work: this process, or a pool of processes. Engines only schedule, so they cannot show in the result."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any

from tqdm import tqdm

from vpt_data.errors import VptDataError

Task = tuple[Callable[..., Any], tuple[Any, ...]]


def keep_memory() -> None:
    """Let Arrow keep the memory it frees; call it before pyarrow is loaded, workers inherit it.

    Its allocator would give memory back at once; a build fills and frees the same memory over and over, and half of
    its system time would be page faults.
    """
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")


@contextmanager
def pool(workers: int) -> Iterator[Executor | None]:
    """A process pool, or None to work in this process; an error or interrupt stops its workers at once."""
    if workers <= 1:
        yield None
        return
    others = set(active_children())
    keep_memory()
    made = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_parent)
    try:
        yield made
    except BaseException:
        for worker in set(active_children()) - others:
            worker.terminate()
        made.shutdown(wait=True, cancel_futures=True)
        raise
    made.shutdown()


def _follow_parent() -> None:
    """In a worker: end with the process that started it, so that no orphan writes on behind a rerun."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started here never see an interrupt, it is the parent's to handle; ours arrives at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(workers: Executor | None, tasks: Iterable[Task], label: str) -> list[Any]:
    """The results of all tasks in their order, with a progress bar on a terminal."""
    listed = list(tasks)
    results: list[Any] = [None] * len(listed)
    with tqdm(total=len(listed), desc=label, disable=None, unit="file") as bar:
        if workers is None:
            for number, (function, arguments) in enumerate(listed):
                results[number] = function(*arguments)
                bar.update()
            return results
        try:
            with _interrupts_later():
                futures = {workers.submit(call, *args): number for number, (call, args) in enumerate(listed)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise VptDataError(
                "A worker process was killed, perhaps because memory ran out; run the same command again to go "
                "on, with fewer --workers if memory is short."
            ) from error
    return results
