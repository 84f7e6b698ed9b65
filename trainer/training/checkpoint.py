"""Checkpoints of a run: a folder `step-NNNNNNN` that is there complete or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from vpt_data.errors import CorpusError, OutputError

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@contextlib.contextmanager
def writing(run: Path) -> Iterator[None]:
    """OutputError if the folder of a run cannot be written in the block, for which torch has an error of its own."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch hides the error of the file that it writes to.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(
            f"{run}: cannot be written ({reason}); correct this and continue from the last "
            "checkpoint with --resume, or give another folder with --out."
        ) from error


def save(
    run: Path, model: VPTModel, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, rank: int, keep: int
) -> None:
    """Write weights, optimiser and `state` (with its `step`), and remove all but the last `keep`.

    All ranks must call it, for sharded weights are gathered; the first one writes. Raises OutputError if it cannot,
    and then what was there before is left as it was.
    """
    first = {id(weight): name for name, weight in reversed(model.state_dict(keep_vars=True).items())}
    weights: dict[str, Any] = get_model_state_dict(model, options=_WHOLE)
    moments = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
    if rank:
        return
    final = run / f"step-{state['step']:07d}"
    fresh = run / ".checkpoint.partial"
    shutil.rmtree(fresh, ignore_errors=True)  # a killed run leaves one
    try:
        with writing(run):
            fresh.mkdir(parents=True)
            # Tied weights are one tensor, which safetensors writes once.
            save_file({name: weights[name].contiguous() for name in first.values()}, fresh / "model.safetensors")
            with (fresh / "optimizer.pt").open("wb") as file:
                torch.save(moments, file)
            (fresh / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
            for path in fresh.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            shutil.rmtree(final, ignore_errors=True)
            fresh.rename(final)
            for old in sorted(run.glob("step-*"))[:-keep]:
                shutil.rmtree(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def restore(run: Path, model: VPTModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back the optimiser of the last checkpoint; its state."""
    found = latest(run)
    assert found is not None
    try:
        state: dict[str, Any] = json.loads((found / "state.json").read_text(encoding="utf-8"))
        moments = torch.load(found / "optimizer.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CorpusError(
            f"{found}: not a whole checkpoint ({reason}); remove it to continue from the one before."
        ) from error
    # No generator: a step draws no random numbers; mask modelling and the order of rows follow from hashes.
    set_optimizer_state_dict(model, optimizer, moments, options=StateDictOptions(full_state_dict=True))
    return state
