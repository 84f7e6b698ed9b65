"""Runs of the command line that vanish at a chosen call that changes a file: no handler runs, no buffer is written.

`python mortal.py MODULE...` forks a child for each order that it reads from stdin, so that only the first one pays for
imports. Moments are counted before each opening for writing, renaming, making, truncating or removing of a file or
folder below the watched folder, before each fsync, and before each request that changes an object in a store.
Somebody else may kill a run as well: `started` gets its process id.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

VANISHED = 77
_EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}


class Life(NamedTuple):
    """How a run ended (VANISHED where it was killed), how many moments it had, and what it wrote to the terminal."""

    code: int
    moments: int
    output: str


class Mortal:
    """The process that forks; `run` gives it an order.

    program  the module whose `main` is the command line
    prepare  module and function, as `module:function`, that is called in each child with the function that counts a
             moment, so that it can count more of them
    """

    def __init__(
        self,
        folder: Path,
        modules: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        program: str = "vpt_data.cli.main",
        prepare: str = "",
    ) -> None:
        self._log, self._program, self._prepare = folder / "mortal.log", program, prepare
        # -P: the helpers beside this file shall not hide modules of the standard library.
        command = [sys.executable, "-P", __file__, program, *modules]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)

    def run(
        self,
        arguments: Sequence[str | Path],
        watched: Path | None = None,
        moment: int = -1,
        env: Mapping[str, str] | None = None,
        started: Callable[[int], None] | None = None,
    ) -> Life:
        """The command line in a child that vanishes at that moment (-1: never) of those in a folder.

        A child whose folder is not watched does not sleep either: it says for how long it would have.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {
            "arguments": [str(argument) for argument in arguments],
            "watched": str(watched) if watched else None,
            "moment": moment,
            "env": dict(env or {}),
            "log": str(self._log),
            "program": self._program,
            "prepare": self._prepare,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        pid = json.loads(self._process.stdout.readline())
        if started is not None:
            started(pid)
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        code, moments = json.loads(self._process.stdout.readline())
        return Life(code, moments, self._log.read_text())

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def _serve() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)  # for the children

    for line in sys.stdin:
        reading, writing = os.pipe()
        go, gone = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os.close(gone)
            os.read(go, 1)  # nothing comes: it ends when the other end is closed
            _live(json.loads(line), writing)
        os.close(writing)
        os.close(go)
        _reply(child)
        sys.stdin.readline()
        os.close(gone)
        with os.fdopen(reading) as counted:
            moments = int(counted.read() or 0)
        _, status = os.waitpid(child, 0)
        _reply([os.waitstatus_to_exitcode(status), moments])


def _reply(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _live(order: dict[str, Any], writing: int) -> None:
    main = importlib.import_module(order["program"]).main
    os.environ.update(order["env"])
    log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    passed, lock = 0, threading.Lock()

    def moment() -> None:
        nonlocal passed
        with lock:
            if passed == order["moment"]:
                os._exit(VANISHED)
            passed += 1

    if order["prepare"]:
        module, _, function = order["prepare"].partition(":")
        getattr(importlib.import_module(module), function)(moment)
    if order["watched"]:
        _watch(order["watched"], moment)
    else:
        time.sleep = lambda seconds: print(f"sleeps {seconds:.1f} s", file=sys.stderr)  # noqa: T201
    try:
        main(order["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(writing, str(passed).encode())
    os._exit(code)


def _watch(folder: str, moment: Callable[[], None]) -> None:
    from vpt_data.store import RemotePath

    def inside(path: Any) -> bool:
        return not isinstance(path, int) and os.fsdecode(path).startswith(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR) and inside(path):
                moment()
        # A whole tree is removed through open folders, by names relative to them.
        elif event in _EVENTS and (inside(arguments[0]) or arguments[-1] not in {-1, None}):
            moment()

    sys.addaudithook(hook)
    fsync, upload = os.fsync, RemotePath.upload

    def counted_fsync(number: int) -> None:
        moment()
        fsync(number)

    os.fsync = counted_fsync  # type: ignore[assignment]
    RemotePath.upload = lambda path: _Upload(upload(path), moment)  # type: ignore[assignment, method-assign, return-value]
    for name in ("unlink", "remove_tree"):
        setattr(RemotePath, name, _after(moment, getattr(RemotePath, name)))


def _after(moment: Callable[[], None], call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        moment()
        return call(*arguments, **options)

    return counted


class _Upload:
    """A stream to an object; opened, written to and closed are moments of their own."""

    def __init__(self, stream: Any, moment: Callable[[], None]) -> None:
        self._stream = stream
        for name in ("write", "flush", "close"):
            setattr(self, name, _after(moment, getattr(stream, name)))


if __name__ == "__main__":
    _serve()
