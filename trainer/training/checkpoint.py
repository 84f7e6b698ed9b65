"""Checkpoints of a run: a folder `step-NNNNNNN` that is there complete or not at all."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from trainer.model.vpt import VPTModel
from trainer.training.run_folder import latest
from vpt_data import store
from vpt_data.errors import CorpusError, OutputError

PARTIAL = ".checkpoint.partial"
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@contextlib.contextmanager
def writing(
    run: Path,
    advice: str = "correct this and continue from the last checkpoint with --resume, or give another folder with --out",
) -> Iterator[None]:
    """OutputError if the folder of a run cannot be written in the block, for which torch has an error of its own."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch hides the error of the file that it writes to.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(f"{run}: cannot be written ({reason}); {advice}.") from error


class Writer:
    """Writes checkpoints of a run, one after the other in one thread, while training goes on.

    The last `keep` checkpoints stay; of older ones with `keep_weights` the weights, as `weights-NNNNNNN`. Leaving the
    block waits for what is being written.
    """

    def __init__(self, run: Path, *, rank: int = 0, keep: int = 1, keep_weights: bool = False) -> None:
        self._run, self._rank, self._keep, self._keep_weights = run, rank, keep, keep_weights
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def save(self, model: VPTModel, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Copy weights and optimiser to the host, and begin to write them with `state` (and its `step`).

        All ranks must call it, for sharded weights are gathered; the first one writes.
        """
        self.wait()
        first = {id(weight): name for name, weight in reversed(model.state_dict(keep_vars=True).items())}
        weights: dict[str, Any] = get_model_state_dict(model, options=_WHOLE)
        moments = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
        if self._rank:
            return
        # Tied weights are one tensor, which safetensors writes once.
        weights = {name: weights[name].contiguous() for name in first.values()}
        if model.device.type == "cpu":
            # They are still those that the next step changes; from a GPU they came as copies.
            weights, moments = copy.deepcopy((weights, moments))
        self._pending = self._thread.submit(self._write, weights, moments, state)

    def check(self) -> None:
        """OutputError if the last checkpoint could not be written; what was there before is left as it was."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written; OutputError as `check`."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, weights: dict[str, Any], moments: dict[str, Any], state: dict[str, Any]) -> None:
        fresh = self._run / PARTIAL
        shutil.rmtree(fresh, ignore_errors=True)  # a killed run leaves one
        try:
            with writing(self._run):
                fresh.mkdir(parents=True)
                save_file(weights, fresh / "model.safetensors")
                with (fresh / "optimizer.pt").open("wb") as file:
                    torch.save(moments, file)
                # safetensors lets only the owner read what it writes.
                (fresh / "model.safetensors").chmod((fresh / "optimizer.pt").stat().st_mode)
                (fresh / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
                for path in fresh.iterdir():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                store.sync_folder(fresh)
                fresh.rename(self._run / f"step-{state['step']:07d}")
                store.sync_folder(self._run)
                for old in sorted(self._run.glob("step-*"))[: -self._keep]:
                    self._let_go(old)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _let_go(self, old: Path) -> None:
        """Renamed first, so that a kill leaves no part of a checkpoint under the name of a whole one."""
        if not self._keep_weights:
            shutil.rmtree(old.rename(self._run / PARTIAL))
            return
        kept = self._run / old.name.replace("step-", "weights-")
        shutil.rmtree(kept, ignore_errors=True)  # of an earlier run in this folder
        old.rename(kept)
        for name in ("optimizer.pt", "state.json"):
            (kept / name).unlink(missing_ok=True)


def restore(run: Path, model: VPTModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back the optimiser of the last checkpoint; its state."""
    found = latest(run)
    assert found is not None
    try:
        state: dict[str, Any] = json.loads((found / "state.json").read_text(encoding="utf-8"))
        moments = torch.load(found / "optimizer.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        advice = f"put back a copy of it, or begin a new run with its weights: --set model.start={found}"
        if len(list(run.glob("step-*"))) > 1:
            advice = "remove it to continue from the one before"
        raise CorpusError(f"{found}: not a whole checkpoint ({reason}); {advice}.") from error
    # No generator: a step draws no random numbers; mask modelling and the order of rows follow from hashes.
    set_optimizer_state_dict(model, optimizer, moments, options=StateDictOptions(full_state_dict=True))
    return state
