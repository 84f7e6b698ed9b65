"""One of two processes: the gradient of a batch split between them against that of the whole, by DDP or FSDP2."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import tiny_batches as tb
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from trainer.data.sample import Sample
from trainer.model import vpt
from trainer.model.phases import phase_count
from trainer.model.vpt import VPTModel
from trainer.training.parallel import leave, shard


def share(rank: int) -> list[Sample]:
    """Rank 0 has all control tokens, with up to two in a sample, and some samples are masked; rank 1 has none."""
    if rank == 0:
        twice = replace(tb.twice(2, "dino", "clip"), masked=True)
        return [tb.reencode(1, "dino"), twice, replace(tb.reencode(3, "clip"), masked=True)]
    return [tb.plain(4, 20)]


def build() -> VPTModel:
    model = tb.model(["dino", "clip"], checkpointing=True)
    model.towers.requires_grad_(False)
    return model


def whole() -> tuple[float, dict[str, Tensor]]:
    model = build()
    out = model([*share(0), *share(1)])
    (out.loss / out.labels).backward()
    return out.loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def main(mode: str, rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / mode}", rank=rank, world_size=2)
    model = build()
    wrapped = DistributedDataParallel(model) if mode == "ddp" else shard(model)
    samples = share(rank)
    count = torch.tensor([sum(int((sample.labels != -100).sum()) for sample in samples)])
    phases = torch.tensor([phase_count(samples) if mode == "fsdp" else 0])
    dist.all_reduce(count)
    dist.all_reduce(phases, dist.ReduceOp.MAX)
    for _ in range(2):  # a second step finds what a first one may leave behind
        wrapped.zero_grad()
        out = wrapped(samples, int(phases))
        (out.loss * 2 / count).backward()  # both average over ranks
    loss = out.loss.detach().clone()
    dist.all_reduce(loss)
    expected, grads = whole()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    full = {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in found.items()}
    assert full.keys() == grads.keys()
    worst = max(((full[n] - grads[n]).abs().max() / grads[n].abs().max().clamp(min=1e-3)).item() for n in grads)
    steered = max(grads[n].abs().max().item() for n in grads if "linear_condition" in n)
    (folder / f"{mode}-{rank}.json").write_text(json.dumps([loss.item() - expected, worst, steered]))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    vpt.LABELS_AT_ONCE = 5  # so that ranks call the head unlike often
    for each in ("ddp", "fsdp"):
        main(each, int(sys.argv[1]), Path(sys.argv[2]))
    leave(0)
