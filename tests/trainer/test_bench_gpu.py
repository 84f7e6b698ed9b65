"""The measurement at full size, made small: it trains, counts, and compares."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from bench import layer_traffic, profile_gpu, train_gpu
from trainer import config as configs
from trainer.config import Config

torch.set_num_threads(1)


def test_the_measurement_runs_on_any_machine(embedded_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--config", "tiny", "--base", "tiny", "--steps", "3", "--warm", "1", "--rows", "4", "--rounds", "1"]
    train_gpu.main(["--corpus", str(embedded_corpus), *small, "--set", "run.device=cpu"])
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["samples_a_step"]) == (2, 4)
    assert found["tokens_per_s"] > found["samples_per_s"] > 0
    assert 0 <= found["data_wait"] < 1
    assert found["two_passes_over_one"]["low"] > 0
    assert "mfu" not in found  # nobody states the peak of a CPU


def test_the_profile_looks_into_a_step_and_ends_in_time(
    embedded_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--config", "tiny", "--base", "tiny", "--steps", "1", "--warm", "0", "--rows", "2", "--rounds", "1"]
    how = ["--profile", "--minutes", "0", "--set", "run.device=cpu"]
    train_gpu.main(["--corpus", str(embedded_corpus), *small, *how])
    out = capsys.readouterr()
    first, *others = json.loads(out.out)["arms"]
    assert first["steps"] == 1
    assert first["figures"]["tokens_per_s"] > 0
    inside = first["inside"]
    assert inside["kernels"][0]["ms"] >= inside["kernels"][1]["ms"] > 0
    assert inside["launches"] > 100
    assert inside["waits"] > 0
    assert inside["loader_rows_per_s"] > 0
    assert inside["two_passes_over_one"]["low"] > 0
    assert {arm["failed"] for arm in others} == {"out of time"}
    assert "launches" in out.err and "out of time" in out.err


def test_each_arm_differs_in_one_thing() -> None:
    config = configs.load("vpt_2b_dino")
    found = {
        name: (arm.data.tokens, float(arm.run.checkpointing), arm.run.compile)
        for name, arm in profile_gpu.arms(config).items()
    }
    assert found == {
        "as configured": (8192, 0.0, False),
        "every second layer": (8192, 0.5, False),
        "checkpointing": (8192, 1.0, False),
        "half the tokens": (4096, 0.0, False),
        "compiled": (8192, 0.0, True),
    }


def test_an_arm_that_does_not_fit_has_half_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []
    freed: list[None] = []
    monkeypatch.setattr(profile_gpu, "_free", lambda: freed.append(None))

    def measure(config: Config, name: str) -> profile_gpu.Arm:
        tried.append((config.data.tokens, config.data.cutoff))
        if config.data.tokens > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return profile_gpu.Arm(name, config.data.tokens, 0.0)

    limit, config = 1500, configs.load("vpt_2b_dino")
    assert profile_gpu.fitting("large", config, measure).tokens == 1024
    assert tried == [(8192, 2048), (4096, 2048), (2048, 2048), (1024, 1024)]
    assert len(freed) == 4
    limit = 0
    assert profile_gpu.fitting("large", config, measure).failed == "out of memory"


def test_kernels_of_a_gpu_are_counted_once() -> None:
    operator, kernel = (
        SimpleNamespace(key=key, count=2, device_type=kind, self_device_time_total=3000.0, self_cpu_time_total=1000.0)
        for key, kind in (("aten::mm", DeviceType.CPU), ("gemm", DeviceType.CUDA))
    )
    assert profile_gpu.longest([operator, kernel], on_gpu=True) == [profile_gpu.Kernel("gemm", 2, 3.0, 1.0)]


def test_what_a_layer_moves_and_starts() -> None:
    """One call of the kernel for all samples: neither pieces nor keys repeated for each head."""
    samples, found = layer_traffic.rows(24), {}
    for name in layer_traffic.VARIANTS:
        with layer_traffic.variant(name):
            found[name] = layer_traffic.one_layer(samples, False)
    for part in ("forward", "backward"):
        assert found["gpu"][f"{part}_gb"] < found["before"][f"{part}_gb"]
        assert found["gpu"][f"{part}_kernels"] < 0.6 * found["before"][f"{part}_kernels"]
        assert found["cpu"][f"{part}_kernels"] < found["before"][f"{part}_kernels"]


def test_what_a_layer_of_the_vision_tower_starts_and_waits_for() -> None:
    before, gpu = (layer_traffic.tower_layer(4, before=before) for before in (True, False))
    assert (before["waits"], gpu["waits"]) == (3, 0)
    assert gpu["forward_kernels"] < before["forward_kernels"]


def test_the_loss_never_holds_more_than_a_chunk_of_logits() -> None:
    with layer_traffic.variant("gpu"):
        whole, chunked, one = (layer_traffic.loss_peak(*how) for how in ((4096, 4096), (4096, 1024), (1024, 1024)))
    assert chunked < one + 0.6  # the sum of the head's gradients, beside that of a chunk
    assert whole > 2.5 * chunked
