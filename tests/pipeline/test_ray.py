"""Ray runs the same tasks to the same files, also where a worker dies in the middle of a shard."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from helpers import end_to_end
from helpers.command import error

from vpt_data import recipe
from vpt_data.errors import RawError, UsageError, VptDataError
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.pipeline.engines import ray
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.pipeline.engines.task import Engine, Task

#: Ray itself warns of these; pytest would make errors of them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ray.Ray]:
    """Two workers on this machine, by way of `--engine ray` itself."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with start_engine("ray", 2) as started:
        assert isinstance(started, ray.Ray)
        yield started


@pytest.fixture(scope="module")
def local(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus that one process makes; not to be changed."""
    out = tmp_path_factory.mktemp("local") / "corpus"
    return end_to_end.build("sample", sample_root, out, "shards=8", mode="embed")


def build(raw: Path, out: Path, started: Engine) -> dict[str, bytes]:
    planned = plan.make(recipe.load("sample", ["shards=8"]), raw, "embed", None)
    assert pipeline.build(planned, out, lambda: nullcontext(started)) is not None
    return end_to_end.contents(out)


def test_two_workers_make_the_same_files(cluster: ray.Ray, sample_root: Path, local: Path, tmp_path: Path) -> None:
    assert build(sample_root, tmp_path / "corpus", cluster) == end_to_end.contents(local)


# A worker dies ------------------------------------------------------------------------------------------------


class Halting:
    """The same cluster, but the first worker to write a shard stops half-way and writes its id to `pid`."""

    seals = True

    def __init__(self, cluster: ray.Ray, pid: Path) -> None:
        self._cluster, self._pid = cluster, pid

    def run_all(self, tasks: Sequence[Task], label: str) -> None:
        self._cluster.run_all(tasks, label)

    def run_share(self, tasks: Sequence[Task], label: str) -> None:
        self._cluster.run_share([task._replace(call=halting(task.call, str(self._pid))) for task in tasks], label)


def halting(call: Callable[..., Any], pid: str) -> Callable[..., Any]:
    """`call`, which the first time never comes back from the middle of a shard."""

    # A function in a function travels by value: the workers cannot import this file.
    def halted(*arguments: Any) -> None:
        import os
        import time

        from vpt_data.corpus import shards

        try:
            marker = os.open(pid, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            call(*arguments)
            return
        write = shards._HashingSink.write

        def half(sink: Any, data: Any) -> int:
            count = write(sink, data)
            if sink.size > 1000:
                os.write(marker, str(os.getpid()).encode())
                time.sleep(600)
            return count

        shards._HashingSink.write = half  # type: ignore[assignment, method-assign]
        call(*arguments)

    return halted


def test_a_worker_that_is_killed_in_the_middle_of_a_shard(
    cluster: ray.Ray, sample_root: Path, local: Path, tmp_path: Path
) -> None:
    pid, out = tmp_path / "pid", tmp_path / "corpus"
    left: list[str] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        left.extend(path.name for path in (out / "data").glob("*.tmp"))
        os.kill(int(pid.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    made = build(sample_root, out, Halting(cluster, pid))
    killer.join()
    assert left, "the worker was not in the middle of a shard"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert made == end_to_end.contents(local)


def test_a_worker_that_always_dies_is_one_sentence(cluster: ray.Ray, tmp_path: Path) -> None:
    def die() -> None:
        import os

        os._exit(1)

    with pytest.raises(VptDataError) as caught:
        cluster.run_all([Task(die, (), tmp_path / "done")], "work")
    assert str(caught.value) == (
        "Ray lost a task for good (WorkerCrashedError); run the same command again to continue."
    )


# Errors -------------------------------------------------------------------------------------------------------


def test_an_error_of_a_task_arrives_as_it_was(cluster: ray.Ray, tmp_path: Path) -> None:
    def fail(kind: type[Exception]) -> None:
        raise kind("rows.jsonl: is no JSON.")

    for kind in (RawError, PermissionError):
        with pytest.raises(kind, match=r"^rows\.jsonl: is no JSON\.$"):
            cluster.run_all([Task(fail, (kind,), tmp_path / "done")], "work")
    with pytest.raises(ZeroDivisionError):
        cluster.run_all([Task(fail, (ZeroDivisionError,), tmp_path / "done")], "work")


def test_what_is_done_is_not_done_again(cluster: ray.Ray, tmp_path: Path) -> None:
    def mark(path: str) -> None:
        with open(path, "a") as file:  # noqa: PTH123 - travels by value, without this file's imports
            file.write("done")

    tasks = [Task(mark, (str(tmp_path / name),), tmp_path / name) for name in "abc"]
    (tmp_path / "b").write_text("before")
    for _ in range(2):
        cluster.run_all(tasks, "work")
    assert [task.done.read_bytes() for task in tasks] == [b"done", b"before", b"done"]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def command(raw: Path, out: Path, *more: str) -> list[str]:
    return ["build", "--recipe", "sample", "--raw", str(raw), "--out", str(out), "--engine", "ray", *more]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_of_nobody_is_one_sentence(sample_root: Path, tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    address = f"{scheme}127.0.0.1:{free_port()}"
    assert error(*command(sample_root, tmp_path / "corpus", "--address", address), code=2) == (
        f"--address {address}: no Ray cluster answers there ([Errno 111] Connection refused)."
    )


def test_an_address_that_is_none_is_one_sentence(sample_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    assert error(*command(sample_root, tmp_path / "corpus", "--address", "nonsense"), code=2) == (
        "--address nonsense: no Ray cluster answers there (Invalid address format: nonsense)."
    )


def test_without_ray_it_is_one_sentence(sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert error(*command(sample_root, tmp_path / "corpus"), code=2) == (
        "--engine ray needs Ray: pip install 'vpt-data[ray]'."
    )


def test_a_local_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")

    def refuse(**options: object) -> None:
        raise RuntimeError(f"no room for {options['num_cpus']}")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UsageError) as caught, start_engine("ray", 2):
        pass
    assert str(caught.value) == "--engine ray: a local Ray does not start here (no room for 2)."
