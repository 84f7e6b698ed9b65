"""The training loop: plain torch on one device or several."""

from __future__ import annotations

import contextlib
import json
import math
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from trainer.config import Config
from trainer.data.loader import Loader, Micro
from trainer.model.vpt import Output, VPTModel
from trainer.training import checkpoint, flops
from trainer.training.parallel import Ranks, divide
from trainer.training.run_folder import METRICS, read_log
from trainer.training.sums import Means, Places, Sums, majority, places
from vpt_data import store
from vpt_data.errors import VptDataError


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate in a step (from 0): up in a line, then a half cosine.

    >>> [round(schedule(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, total - rising))) / 2


class Trainer:
    """One run: `run()` trains from where it stands to the end."""

    def __init__(
        self,
        model: VPTModel,
        loader: Loader,
        config: Config,
        out: Path,
        ranks: Ranks,
        total: int,
        held_out: Callable[[], Loader] | None = None,
    ) -> None:
        """`held_out` makes a loader whose first step has the rows of a validation."""
        self.config, self.loader, self.out, self.ranks, self.total = config, loader, out, ranks, total
        self._held_out = held_out
        self.step, self.stopped = 0, False
        if config.run.compile:
            model.adapter.compile()
        loader.planner = model.planner
        self._count = flops.FlopCounter(model)
        self._peak = flops.peak(ranks.device)
        self.model = model
        self._wrapped = divide(model, config.run.parallel, ranks)
        self._trained = [weight for weight in model.parameters() if weight.requires_grad]
        optim = config.optim
        self._optimizer = torch.optim.AdamW(
            self._trained,
            lr=optim.lr,
            betas=(optim.beta1, optim.beta2),
            weight_decay=optim.weight_decay,
            fused=ranks.device.type == "cuda",
        )
        run = config.run
        self._writer = checkpoint.Writer(out, rank=ranks.rank, keep=run.keep, keep_weights=run.keep_weights)

    def restore(self) -> None:
        """Go on from the last checkpoint; the weights are in the model already."""
        state = checkpoint.restore(self.out, self.model, self._optimizer)
        self.loader.restore(state["loader"])
        self.step = state["step"]
        if not self.ranks.rank:
            # What comes after the checkpoint is done again.
            kept = [json.dumps(line) + "\n" for line in read_log(self.out) if line["step"] <= self.step]
            with checkpoint.writing(self.out):
                store.write(self.out / METRICS, "".join(kept).encode())

    def save(self) -> None:
        """Begin to write a checkpoint of this moment."""
        state = {"step": self.step, "loader": self.loader.state()}
        self._writer.save(self.model, self._optimizer, state)

    def run(self) -> None:
        """Train until there is no step left to make, or Ctrl-C or SIGTERM."""
        quiet = True if self.ranks.rank else None  # None: where there is no terminal
        bar = tqdm(total=self.total, initial=self.step, desc="training", unit="step", disable=quiet)
        with bar, _stoppable() as asked, self._writer:
            for entry in self._steps(asked):
                self._writer.check()
                self._write(entry)
                bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
                bar.update()
                done = self.step == self.total or self.stopped
                if self._held_out and not self.stopped and (done or self.step % self.config.run.validate_every == 0):
                    self._write({"step": self.step, "validation": self._validate(self._held_out())})
                if done or self.step % self.config.run.save_every == 0:
                    self.save()
                if done:
                    break

    def _steps(self, asked: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Make optimiser steps and say how each went."""
        if self.step >= self.total:
            return
        self.model.train()
        sums, ids, skipped = Sums(self.ranks.device), [], []
        begin, waited = time.perf_counter(), self.loader.waited
        for micro in self.loader:
            self._learn(micro, sums)
            ids += [sample.id for sample in micro.samples]
            skipped += [one._asdict() for one in micro.skipped]
            if not micro.last:
                continue
            if asked():
                sums.mark()
            means = sums.means()
            entry = self._update(means)
            self.stopped = means.marks > 0 and self.step < self.total
            entry |= self._speed(means, time.perf_counter() - begin, self.loader.waited - waited)
            entry |= {"epoch": micro.epoch, "position": micro.position, "skipped": self._all(skipped)}
            if self.config.run.ids:
                entry["ids"] = self._all(ids)
            yield entry
            begin, waited = time.perf_counter(), self.loader.waited
            sums, ids, skipped = Sums(self.ranks.device), [], []

    def _learn(self, micro: Micro, sums: Sums) -> None:
        """Gradients of one micro-batch, not yet divided by the weight of all labels of the step."""
        # Ranks exchange gradients in the last micro-batch of a step only.
        if isinstance(self._wrapped, DistributedDataParallel):
            self._wrapped.require_backward_grad_sync = micro.last
        elif isinstance(self._wrapped, FSDPModule):
            self._wrapped.set_requires_gradient_sync(micro.last)
        # Ranks average gradients; we want their sum.
        loss = self._loss(self._wrapped, micro, sums) * self.ranks.world
        loss.backward()  # type: ignore[no-untyped-call]

    def _loss(self, model: nn.Module, micro: Micro, sums: Sums) -> Tensor:
        """The sum of the losses of a micro-batch, which is counted in `sums`."""
        device = self.ranks.device
        batch = micro.batch(self.loader.encoder.vision, device)
        # FSDP gathers weights at each call of a layer, so all ranks must make as many.
        sharded = isinstance(model, FSDPModule)
        phases = micro.phases if sharded else 0
        # It has its own way to compute in bfloat16.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" and not sharded):
            out: Output = model(batch, phases)
        sums.add(out, micro.samples, self._count(micro.samples))
        return out.loss

    def _validate(self, rows: Loader) -> dict[str, Any]:
        """Loss and accuracy on rows that are not trained on: the same on any number of ranks."""
        begin, sums, skipped, found = time.perf_counter(), Sums(self.ranks.device), [], Places()
        rows.planner = self.model.planner
        self.model.eval()
        with torch.no_grad():
            for micro in rows:
                # Not through DDP, whose ranks wait for each other.
                self._loss(self.model, micro, sums)
                found.update(places(micro.samples))
                skipped += [one._asdict() for one in micro.skipped]
        if isinstance(self.model, FSDPModule):
            self.model.reshard()  # the end of a backward pass does it otherwise
        self.model.train()
        spent = time.perf_counter() - begin
        usual = majority(sum(self._all([found]), Places()))
        return {**sums.means().entry(), "majority": usual, "seconds": spent, "skipped": self._all(skipped)}

    def _update(self, means: Means) -> dict[str, Any]:
        """One step of the optimiser; what is known about it."""
        rate = self.config.optim.lr * schedule(self.step, self.total, self.config.optim.warmup)
        norm = self._apply(1 / means.weight, rate) if means.weight else 0.0
        self._optimizer.zero_grad()
        self.step += 1
        if not math.isfinite(means.loss) or not math.isfinite(norm):
            raise VptDataError(
                f"Step {self.step}: the loss is {means.loss} and the norm of its gradient {norm}; continue from the "
                "last checkpoint with a smaller optim.lr."
            )
        return {"step": self.step, **means.entry(), "lr": rate, "grad_norm": norm}

    def _apply(self, scale: float, rate: float) -> float:
        torch._foreach_mul_([weight.grad for weight in self._trained if weight.grad is not None], scale)
        total = nn.utils.clip_grad_norm_(self._trained, self.config.optim.clip or math.inf)
        norm = float(total.full_tensor() if hasattr(total, "full_tensor") else total)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            self._optimizer.step()
        return norm

    def _speed(self, means: Means, seconds: float, waited: float) -> dict[str, Any]:
        if self.ranks.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 1e9
        else:
            # Linux counts in kilobytes, macOS in bytes.
            unit = 1 if sys.platform == "darwin" else 1024
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        speed = {
            "seconds": seconds, "tokens_per_s": means.tokens / seconds,
            "samples_per_s": means.samples / seconds, "data_wait": waited / seconds, "memory_gb": memory,
        }  # fmt: skip
        return speed | ({"mfu": means.flops / seconds / self._peak / self.ranks.world} if self._peak else {})

    def _all(self, mine: list[Any]) -> list[Any]:
        """The lists of all ranks, one after the other."""
        if self.ranks.world == 1:
            return mine
        found: list[list[Any]] = [[] for _ in range(self.ranks.world)]
        dist.all_gather_object(found, mine)
        return [one for some in found for one in some]

    def _write(self, entry: dict[str, Any]) -> None:
        if not self.ranks.rank:
            with checkpoint.writing(self.out), (self.out / METRICS).open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM ends after the current step; a second Ctrl-C ends it now, but for a checkpoint being written.

    A second SIGTERM does not: schedulers and launchers both send one to each rank.
    """
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
