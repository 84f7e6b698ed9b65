"""Run a command and report what it cost: wall and CPU seconds, peak memory and bytes read of its tree.

`python -m bench.measure -- CMD ARG ...` prints one JSON object last. `measure()` runs that in a process of
its own, so that orphaned grandchildren can be adopted and counted without touching the caller's children.

Memory is the sum over the tree, sampled every 20 ms: RSS counts pages shared between processes once per
process and mapped files too; `anon` is memory of the processes' own. The kernel's own high-water mark of
the largest single process is a lower bound and wins where sampling missed a spike. Bytes read are `rchar`
of `/proc/PID/io`, which the kernel adds up over reaped children: every byte through read(2), from the page
cache too, but **not** bytes read through memory maps.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

INTERVAL_S = 0.02
ORPHAN_WAIT_S = 5.0
SET_CHILD_SUBREAPER = 36
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Cost:
    """What one run of a command cost; memory in MB of 1e6 bytes. `stdout` and `stderr` are the command's.

    peak_process_mb   RSS of the largest single process, as the kernel kept it (orphans do not count)
    """

    returncode: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    peak_anon_mb: float
    read_mb: float
    wrote_mb: float
    stdout: str
    stderr: str
    peak_process_mb: float = 0.0


def measure(command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end and return its cost; raises RuntimeError with its stderr where it fails."""
    run = [sys.executable, "-m", "bench.measure", "--", *command]
    done = subprocess.run(run, cwd=cwd, env=dict(env) if env else None, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measure: the measuring process failed: {done.stderr.strip()}")
    cost = Cost(**json.loads(done.stdout))
    if cost.returncode != 0:
        raise RuntimeError(f"measure: `{' '.join(command)}` ended with {cost.returncode}: {cost.stderr.strip()}")
    return cost


def main(argv: Sequence[str]) -> int:
    """Run the command after `--` and print its Cost as JSON."""
    if len(argv) < 2 or argv[0] != "--":
        sys.stderr.write("usage: python -m bench.measure -- CMD ARG ...\n")
        return 2
    print(json.dumps(asdict(run_here(argv[1:]))))
    return 0


def run_here(command: Sequence[str]) -> Cost:
    """Run `command` as a child of this process, which adopts the child's orphans (Linux only)."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err)
        sampler = _Sampler(child.pid)
        sampler.start()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - start
        sampler.stop()
        read, wrote = _moved(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        cpu, largest = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        orphans_read, orphans_wrote, orphans_cpu = _reap_orphans()
        out.seek(0)
        err.seek(0)
        return Cost(
            child.returncode,
            round(wall, 3),
            round(cpu + orphans_cpu, 3),
            round(max(sampler.rss, largest) / 1e6, 1),
            round(sampler.anon / 1e6, 1),
            round((read + orphans_read) / 1e6, 1),
            round((wrote + orphans_wrote) / 1e6, 1),
            out.read(),
            err.read()[-4000:],
            round(largest / 1e6, 1),
        )


class _Sampler(threading.Thread):
    """Peak of summed RSS and anonymous memory of a process and its descendants, in bytes."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.rss, self.anon = root, 0, 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(INTERVAL_S):
            rss = anon = 0
            for pid in _tree(self.root):
                resident, own = _memory(pid)
                rss, anon = rss + resident, anon + own
            self.rss, self.anon = max(self.rss, rss), max(self.anon, anon)

    def stop(self) -> None:
        self._done.set()
        self.join()


def _tree(root: int) -> list[int]:
    """The process and its living descendants (children of every thread)."""
    found = [root]
    for pid in found:
        with contextlib.suppress(*GONE):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Resident and anonymous bytes; zero for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except GONE:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return sizes.get("VmRSS", 0), sizes.get("RssAnon", 0)


def _moved(pid: int) -> tuple[int, int]:
    """Bytes read and written by an ended, not yet reaped process and the children it reaped."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["wchar"])


def _reap_orphans() -> tuple[int, int, float]:
    """Wait for adopted processes (pool helpers outlive their parent): bytes read, written, CPU seconds."""
    read, wrote, cpu, deadline = 0, 0, 0.0, time.monotonic() + ORPHAN_WAIT_S
    while time.monotonic() < deadline:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            break
        if ended is None:
            time.sleep(INTERVAL_S)
            continue
        more_read, more_wrote = _moved(ended.si_pid)
        read, wrote = read + more_read, wrote + more_wrote
        _, _, usage = os.wait4(ended.si_pid, 0)
        cpu += usage.ru_utime + usage.ru_stime
    return read, wrote, cpu


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
