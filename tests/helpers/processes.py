"""Builds in processes of their own, to be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from helpers import end_to_end


def arguments(raw: Path, out: Path, workers: int) -> list[str]:
    options = ["--raw", str(raw), "--out", str(out), "--workers", str(workers)]
    return ["build", "--recipe", "sample", "--images", "embed", *options]


def start(raw: Path, out: Path, workers: int, *more: str) -> subprocess.Popen[str]:
    """A build in a process group of its own."""
    command = [sys.executable, "-m", "vpt_data", *arguments(raw, out, workers), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def await_any(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Return when a file is there, or the process is not."""
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.002)


def finish(raw: Path, out: Path, undisturbed: Path, workers: int = 1) -> None:
    """Run the same build again; what comes out is what an undisturbed one makes, and nothing else is left."""
    end_to_end.build("sample", raw, out, mode="embed", workers=workers)
    assert end_to_end.contents(out) == end_to_end.contents(undisturbed)


def members(group: int, what: str = "") -> list[int]:
    """The processes of a process group that still run and have `what` in their command line."""
    command = ["ps", "-A", "-ww", "-o", "pid=,pgid=,stat=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [(*line.split(None, 3), "") for line in listed]
    return [int(pid) for pid, pgid, state, args, *_ in found if int(pgid) == group and state[0] != "Z" and what in args]


def await_none(group: int) -> None:
    """Return when no process of the group is left; fail if that takes long."""
    deadline = time.monotonic() + 20
    while (left := members(group)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
