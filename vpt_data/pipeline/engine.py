"""Who does the work: processes of this machine, ranks that share a folder, or Ray. Engines only schedule.

A task is a pure function that leaves its result in files; `done` is the last of them. So an engine may run a task
anywhere and twice, and cannot show in the result.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from tqdm import tqdm

from vpt_data import keep_memory, store
from vpt_data.errors import UsageError, VptDataError
from vpt_data.images.folders import FOLLOW_LINKS
from vpt_data.store import AnyPath


class Task(NamedTuple):
    """A call, and the file that shows that it has been done.

    size     how much of the progress it is: 1, or its bytes where tasks of one stage differ much
    reports  the call takes `report`, a function that it calls with each part of its size that it has done
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    done: AnyPath
    size: int = 1
    reports: bool = False


class Engine(Protocol):
    """What a build asks for. `seals` says whether this process also finishes the corpus."""

    seals: bool

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        """Return when every task is done, whoever did it."""

    def run_share(self, tasks: Sequence[Task], label: str) -> None:
        """Do what of the tasks falls to this process."""


def perform(version: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Run a task, on whatever machine; refuse to where another pyarrow would write other bytes."""
    if version != pa.__version__:
        raise VptDataError(
            f"{socket.gethostname()}: this worker has pyarrow {pa.__version__}, the build was planned with {version}, "
            "and their bytes differ; install the same version everywhere."
        )
    call(*arguments)


def undone(tasks: Iterable[Task]) -> list[Task]:
    """The tasks whose file is not there; each folder is listed once."""
    listed: dict[AnyPath, frozenset[str]] = {}
    left = []
    for task in tasks:
        folder = task.done.parent
        if folder not in listed:
            listed[folder] = store.names(folder)
        if task.done.name not in listed[folder]:
            left.append(task)
    return left


def _bar(tasks: Sequence[Task], todo: Sequence[Task], label: str) -> tqdm[Any]:
    """The progress of a stage, in its tasks, or in bytes where tasks have sizes."""
    total, left = (sum(task.size for task in each) for each in (tasks, todo))
    by_size = total > len(tasks)
    return tqdm(
        total=total, initial=total - left, desc=label, disable=None, unit="B" if by_size else "task", unit_scale=by_size
    )


def _perform_here(task: Task, bar: tqdm[Any]) -> None:
    """Run a task in this process, and show how far it is."""
    reported = 0

    def report(part: int) -> None:
        nonlocal reported
        part = min(part, task.size - reported)
        reported += part
        bar.update(part)

    call = functools.partial(task.call, report=report) if task.reports else task.call
    perform(pa.__version__, call, task.arguments)
    bar.update(task.size - reported)


class Local:
    """This process, or a pool of processes on this machine."""

    seals = True

    def __init__(self, pool: Executor | None, width: int = 1) -> None:
        self._pool = pool
        self.width = width

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        """Run the tasks that are not done yet."""
        todo = undone(tasks)
        with _bar(tasks, todo, label) as bar:
            # A single task is done here: workers that are just starting, or that would copy its inputs, gain nothing.
            if self._pool is None or len(todo) == 1:
                for task in todo:
                    _perform_here(task, bar)
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


class Ray:
    """Tasks of a Ray cluster; a task whose worker dies is run again elsewhere."""

    seals = True

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        # One core each: what a task reads, renders and writes keeps about one busy.
        self._perform = ray.remote(max_retries=3, num_cpus=1)(perform)

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        """Run the tasks that are not done yet."""
        todo = undone(tasks)
        sizes = {self._perform.remote(pa.__version__, task.call, task.arguments): task.size for task in todo}
        with _bar(tasks, todo, label) as bar:
            left = list(sizes)
            while left:
                ready, left = self._ray.wait(left)
                for result in ready:
                    self._result(result)
                    bar.update(sizes[result])

    run_share = run_all

    def _result(self, result: Any) -> None:
        try:
            self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, VptDataError | OSError) else error) from error
        except self._ray.exceptions.RayError as error:
            raise VptDataError(
                f"Ray lost a task for good ({type(error).__name__}); run the same command again to continue."
            ) from error


@contextmanager
def start(name: str, workers: int, address: str | None = None, preload: Sequence[str] = ()) -> Iterator[Engine]:
    """The engine of that name: `local`, `ranks` or `ray`; an error or interrupt stops its workers at once.

    preload   modules that workers of this machine import while the first input is read
    """
    if name == "ray":
        with _ray(workers, address) as cluster:
            yield Ray(cluster)
        return
    with _pool(workers, preload) as made:
        local = Local(made, workers)
        yield local if name == "local" else Ranks(*rank_of(os.environ), local)


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'vpt-data[ray]'.") from error
    if address is not None:
        _reach(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        else:
            # Workers of a cluster have an environment of their own.
            follow = {name: os.environ[name] for name in (FOLLOW_LINKS,) if name in os.environ}
            ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": follow})
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise UsageError(f"--engine ray: a local Ray does not start here ({error}).") from error
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error}).") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own, which ends the process without a sentence
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """UsageError where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error}).") from error


@contextmanager
def _pool(workers: int, preload: Sequence[str]) -> Iterator[Executor | None]:
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
