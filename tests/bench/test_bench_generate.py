"""The benchmark of generation at a tiny size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from bench import generate


def test_every_batch_size_says_as_much(
    embedded_corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(embedded_corpus), "--rows", "3", "--tokens", "2"]
    monkeypatch.setattr(sys, "argv", ["generate", *arguments])
    generate.main()
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()]
    assert [(line[0], line[-1]) for line in table] == [(batch, "24") for batch in ("1", "4", "16", "64")]
