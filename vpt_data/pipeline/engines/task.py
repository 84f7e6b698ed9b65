"""A task of a build, and what an engine that runs tasks has to do.

A task is a pure function that leaves its result in files; `done` is the last of them. So an engine may run a task
anywhere and twice, and cannot show in the result.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from tqdm import tqdm

from vpt_data import store
from vpt_data.errors import VptDataError
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


def progress(tasks: Sequence[Task], todo: Sequence[Task], label: str) -> tqdm[Any]:
    """The progress of a stage, in its tasks, or in bytes where tasks have sizes."""
    total, left = (sum(task.size for task in each) for each in (tasks, todo))
    by_size = total > len(tasks)
    return tqdm(
        total=total, initial=total - left, desc=label, disable=None, unit="B" if by_size else "task", unit_scale=by_size
    )


def perform_in_parts(version: str, task: Task, advance: Callable[[int], object]) -> None:
    """Run a task as `perform` does, and `advance` by its size: by each part of it that it reports, and by the rest."""
    reported = 0

    def report(part: int) -> None:
        nonlocal reported
        part = min(part, task.size - reported)
        reported += part
        advance(part)

    call = functools.partial(task.call, report=report) if task.reports else task.call
    perform(version, call, task.arguments)
    advance(task.size - reported)
