"""Two processes with unlike batches give the gradient of one with both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_ranks_are_one(mode: str, tmp_path: Path) -> None:
    paths = os.pathsep.join(str(path) for path in (HERE.parents[1], HERE))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "rank_worker.py"), mode]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    for rank in range(2):
        loss, worst, steered = json.loads((tmp_path / f"{mode}-{rank}.json").read_text())
        assert abs(loss) < 1e-3
        assert worst < 1e-5
        assert steered > 1e-3, "nothing went through the control vectors, so the test shows nothing"
