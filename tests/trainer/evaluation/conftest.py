"""The sample corpus of evaluation rows, which all tests of a file of answers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import end_to_end

from trainer.evaluation import items
from vpt_data.corpus.reader import open_corpus


@pytest.fixture(scope="session")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("evaluation") / "corpus")


@pytest.fixture(scope="session")
def asked(corpus: Path) -> items.Items:
    return items.read(open_corpus(str(corpus)))
