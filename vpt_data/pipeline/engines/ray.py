"""Tasks on a Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from vpt_data.errors import UsageError, VptDataError
from vpt_data.images.folders import FOLLOW_LINKS
from vpt_data.pipeline.engines.task import Task, perform, progress, undone


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
        with progress(tasks, todo, label) as bar:
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
def cluster(workers: int, address: str | None) -> Iterator[Any]:
    """A Ray cluster: one of so many workers on this machine, or the one at `address`; else a UsageError."""
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
