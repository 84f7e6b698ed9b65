"""Two processes with unlike batches give the gradient of one with both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_batches as tb
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from trainer.model.weights import cast
from trainer.training.parallel import join, shard

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have found in each mode; one pair, because they import torch for seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = os.pathsep.join(str(path) for path in (HERE.parents[1], HERE))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "rank_worker.py")]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return folder


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_ranks_are_one(mode: str, compared: Path) -> None:
    for rank in range(2):
        loss, worst, steered = json.loads((compared / f"{mode}-{rank}.json").read_text())
        assert abs(loss) < 1e-3
        assert worst < 1e-5
        assert steered > 1e-3, "nothing went through the control vectors, so the test shows nothing"


def test_one_rank_computes_in_half_precision_and_keeps_its_weights_in_single(tmp_path: Path) -> None:
    """What a GPU does under FSDP2, on the CPU: no autocast, frozen weights in bfloat16 and not divided."""
    samples = [tb.reencode(1, "dino"), tb.twice(2, "dino", "clip"), tb.plain(4, 20)]
    exact, model = (tb.model(["dino", "clip"]) for _ in range(2))
    for one in (exact, model):
        one.towers.requires_grad_(False)
        one.adapter.layers[0].mlp.requires_grad_(False)
    cast((weight for weight in model.parameters() if not weight.requires_grad), torch.bfloat16)
    expected = exact(samples)
    expected.loss.backward()
    join("cpu", "fsdp2")
    try:
        out = shard(model, torch.bfloat16)(samples)
        out.loss.backward()
        assert out.loss.item() == pytest.approx(expected.loss.item(), rel=1e-2)
        weights = dict(model.named_parameters())
        for name, weight in exact.named_parameters():
            mine = weights[name]
            assert isinstance(mine, DTensor) == (not name.startswith("towers."))
            assert (mine.grad is None) == (weight.grad is None), name
            if weight.grad is not None:
                assert mine.dtype == mine.grad.dtype == torch.float32
                found = torch.cosine_similarity(mine.grad.full_tensor().flatten(), weight.grad.flatten(), 0)
                assert found > 0.98 or weight.grad.norm() < 1e-3, name
    finally:
        dist.destroy_process_group()
