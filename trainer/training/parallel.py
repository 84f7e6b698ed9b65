"""How processes share a run: who each one is, and how the model is divided between them."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from trainer.config import Parallel
from trainer.model.vpt import VPTModel
from trainer.model.weights import cast
from vpt_data.errors import UsageError


class Ranks(NamedTuple):
    """Who this process is."""

    rank: int
    world: int
    device: torch.device


def join(device: str, parallel: Parallel = "ddp") -> Ranks:
    """Join the processes that torchrun started, if it did; FSDP2 needs a group even for one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("run.device is cuda, and torch finds no GPU here; set run.device=cpu.")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(where)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if (world > 1 or parallel == "fsdp2") and not dist.is_initialized():
        store = dist.HashStore() if world == 1 else None  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=world, store=store)
    return Ranks(rank, world, where)


def leave(code: int) -> NoReturn:
    """End this process, after what Python has to do at its end, without the destructors of torch.

    After a group of processes they abort a rank now and then that has done everything.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def divide(model: VPTModel, parallel: Parallel, ranks: Ranks) -> nn.Module:
    """The model on its device: whole on each rank (`ddp`), or its weights divided between them (`fsdp2`)."""
    model.to(ranks.device)
    if ranks.device.type == "cuda":
        # Frozen weights need only the dtype that they are used with.
        cast((weight for weight in model.parameters() if not weight.requires_grad), torch.bfloat16)
    if parallel == "fsdp2":
        return shard(model, torch.bfloat16 if ranks.device.type == "cuda" else None)
    return model if ranks.world == 1 else DistributedDataParallel(model, gradient_as_bucket_view=True)


def shard(model: VPTModel, dtype: torch.dtype | None = None) -> VPTModel:
    """Divide all weights but those of frozen encoders by FSDP2, which computes in `dtype`.

    Frozen encoders stay whole on every rank, which runs them for its own pictures only; in bfloat16 they take 2 GB.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    encoders = [*model.towers.parameters(), *model.adapter.vision.parameters()]
    for layer in model.adapter.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy, ignored_params={weight for weight in encoders if not weight.requires_grad})
    return model
