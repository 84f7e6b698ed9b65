"""What `python -m bench.train_gpu --profile` measures: where the time of a step goes, and how other settings compare.

An arm is the configuration with another `data.tokens`, `run.checkpointing` or `run.compile`. Each is trained for a few
steps; the first one is also looked into: kernels by time, launches, and waits of the host for the device. An arm that
does not fit into memory begins again with half the tokens. On a CPU, operators stand for kernels, and reads of values
for waits.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.layer_traffic import Traffic, listed
from bench.train_gpu import FIGURES, Unsaved, trainer_of, two_passes
from trainer.config import Config
from trainer.data.corpus import Corpus
from trainer.training import setup

LEAST = 1024  # tokens of a micro-batch, below which an arm is given up
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
TOP = 15


@dataclass
class Kernel:
    """Calls, milliseconds and share of a step's time on the device of one kernel, or operator of a CPU."""

    name: str
    calls: int
    ms: float
    share: float


@dataclass
class Inside:
    """One step: kernels of the longest time, launches, and waits of the host by the line that waits.

    Beside it the rows of a second that the loader alone makes, and how much longer full passes take (see train_gpu).
    """

    kernels: list[Kernel]
    launches: int
    waits: int
    where: dict[str, int]
    loader_rows_per_s: float = 0.0
    two_passes_over_one: dict[str, float] = field(default_factory=dict)


@dataclass
class Arm:
    """Medians over the steps of one setting; `failed` says why there are none."""

    name: str
    tokens: int
    checkpointing: float
    steps: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    inside: Inside | None = None
    failed: str = ""


def arms(config: Config) -> dict[str, Config]:
    """The configuration first, then what differs from it in one thing."""
    again = float(config.run.checkpointing)
    settings = {
        "as configured": (config.data.tokens, again),
        "no checkpointing": (config.data.tokens, 0.0),
        "every second layer": (config.data.tokens, 0.5),
        "checkpointing": (config.data.tokens, 1.0),
        "half the tokens": (config.data.tokens // 2, again),
    }
    found = {}
    for number, (name, (tokens, share)) in enumerate(settings.items()):
        if not number or (tokens, share) != settings["as configured"]:
            found[name] = _with(config, tokens, share)
    # Last, for it takes minutes to begin.
    if not config.run.compile:
        found["compiled"] = msgspec.structs.replace(config, run=msgspec.structs.replace(config.run, compile=True))
    return found


def profiled(config: Config, corpus: Corpus, *, warm: int, rounds: int, minutes: float) -> list[Arm]:
    """All arms, as long as there is time; the first is looked into."""
    until, found = time.monotonic() + 60 * minutes, list[Arm]()

    def measure(config: Config, name: str) -> Arm:
        return _arm(
            Arm(name, config.data.tokens, float(config.run.checkpointing)),
            config,
            corpus,
            warm,
            until,
            rounds * (not found),
        )

    for name, changed in arms(config).items():
        late = found and time.monotonic() > until
        found.append(_failed(name, changed, "out of time") if late else fitting(name, changed, measure))
    return found


def fitting(name: str, config: Config, measure: Callable[[Config, str], Arm]) -> Arm:
    """An arm with as many tokens as fit into memory: half as many after each time that they did not."""
    while config.data.tokens >= LEAST:
        _free()
        with contextlib.suppress(torch.OutOfMemoryError):
            return measure(config, name)
        config = _with(config, config.data.tokens // 2, float(config.run.checkpointing))
    return _failed(name, config, "out of memory")


def _free() -> None:
    """Give memory back that is held by the arm before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _failed(name: str, config: Config, why: str) -> Arm:
    return Arm(name, config.data.tokens, float(config.run.checkpointing), failed=why)


def _with(config: Config, tokens: int, checkpointing: float) -> Config:
    data = msgspec.structs.replace(config.data, tokens=tokens, cutoff=min(config.data.cutoff, tokens))
    run = msgspec.structs.replace(config.run, checkpointing=checkpointing)
    return msgspec.structs.replace(config, data=data, run=run)


def _arm(found: Arm, config: Config, corpus: Corpus, warm: int, until: float, rounds: int) -> Arm:
    """The steps of a configuration, one at least after the first `warm`; `rounds` above 0: what is inside of one."""
    with tempfile.TemporaryDirectory() as place:
        trainer = trainer_of(config, corpus, Path(place))
        made, entries = trainer.steps(), []
        for number, entry in enumerate(islice(made, config.optim.steps)):
            entries += [entry] if number >= warm else []
            if entries and time.monotonic() > until:
                break
        found.steps = len(entries)
        found.figures = {key: statistics.median(one[key] for one in entries) for key in FIGURES if key in entries[0]}
        if rounds:
            found.inside = _inside(made, on_gpu=trainer.ranks.device.type == "cuda")
            found.inside.loader_rows_per_s = _alone(trainer, corpus)
            found.inside.two_passes_over_one = _passes(trainer, corpus, rounds)
    return found


def _alone(trainer: Unsaved, corpus: Corpus) -> float:
    """Rows of a second that the loader makes if nobody trains on them: the second step of a new one."""
    loader, _ = setup.make_loader(trainer.config, corpus, trainer.loader.encoder, trainer.ranks)
    begin, rows, steps = 0.0, 0, 0
    for micro in loader:
        rows += len(micro.samples) if steps else 0
        steps += micro.last
        if micro.last and steps == 1:
            begin = time.perf_counter()
        elif steps == 2:
            break
    return rows / (time.perf_counter() - begin)


def _passes(trainer: Unsaved, corpus: Corpus, rounds: int) -> dict[str, float]:
    for count in (8, 4, 2, 1):
        _free()
        with contextlib.suppress(torch.OutOfMemoryError):
            return two_passes(trainer, corpus, rounds, count)
    return {}


def _inside(made: Iterator[Any], *, on_gpu: bool) -> Inside:
    """Two more steps: one below the profiler, and one that counts waits."""
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as below:
        next(made)
    events: Any = below.key_averages()
    kernels, calls = longest(events, on_gpu=on_gpu), {event.key: event.count for event in events}
    if on_gpu:
        waits = _waits(made)
        return Inside(
            kernels, sum(calls.get(name, 0) for name in LAUNCHES), waits.total(), dict(waits.most_common(TOP))
        )
    reads, launches = _reads(made)
    return Inside(kernels, launches, reads, {})


def longest(events: Iterable[Any], *, on_gpu: bool) -> list[Kernel]:
    """The kernels of a GPU, or operators of a CPU, that took most of the time."""
    # On a GPU the operator that started a kernel is an event with the same time.
    spent = {
        event.key: (event.count, (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3)
        for event in events
        if not on_gpu or event.device_type == DeviceType.CUDA
    }
    total = sum(ms for _, ms in spent.values()) or 1.0
    found = [Kernel(key, count, round(ms, 3), round(ms / total, 3)) for key, (count, ms) in spent.items()]
    return sorted(found, key=lambda kernel: kernel.ms, reverse=True)[:TOP]


def _waits(made: Iterator[Any]) -> Counter[str]:
    """Lines of code that made the host wait for the device in a step, and how often."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(made)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = (f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchronizing" in str(one.message))
    return Counter(lines)


def _reads(made: Iterator[Any]) -> tuple[int, int]:
    """How often a step of a CPU reads values of tensors, and how many operators it runs."""
    with listed() as lists, Traffic() as traffic:
        next(made)
    return len(lists) + traffic.reads, traffic.kernels


def table(found: list[Arm]) -> str:
    """The arms, and the inside of the first, for reading."""
    lines = [f"{'':18} {'tokens':>7} {'rows/s':>8} {'tokens/s':>9} {'MFU':>6} {'GB':>6} {'waiting for data':>16}"]
    for arm in found:
        f, line = arm.figures, f"{arm.name:18} {arm.tokens:7,} "
        if f:
            line += (
                f"{f['samples_per_s']:8.1f} {f['tokens_per_s']:9,.0f} {f.get('mfu', 0.0):6.3f} {f['memory_gb']:6.1f} "
            )
            line += f"{f['data_wait']:16.1%}"
        lines.append(line + arm.failed)
    inside = next((arm.inside for arm in found if arm.inside), None)
    if inside:
        lines += ["", f"a step as configured: {inside.launches:,} launches, {inside.waits:,} waits of the host"]
        lines += [f"  {count:6,} waits at {line}" for line, count in inside.where.items()]
        lines += [f"  {k.ms:10.2f} ms {k.share:6.1%} {k.calls:7,} x {k.name[:80]}" for k in inside.kernels]
        lines.append(f"the loader alone: {inside.loader_rows_per_s:.1f} rows/s")
        passes = inside.two_passes_over_one.get("median", 0.0)
        lines.append(f"full passes take {passes:.2f} times as long as one" if passes else "full passes do not fit")
    return "\n".join(lines)
