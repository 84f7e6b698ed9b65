"""The sample corpus of evaluation rows, which all tests of a file of answers share; reports with little on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import end_to_end, undrawn
from helpers.browsing import browser as browser

from trainer.evaluation import items
from vpt_data.corpus.reader import open_corpus


@pytest.fixture(scope="session")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("evaluation") / "corpus")


@pytest.fixture(scope="session")
def embedded(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same corpus with its pixels, for a model that is asked."""
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("model") / "corpus", mode="embed")


@pytest.fixture(scope="session")
def run(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained model."""
    from asked_runs import made

    return made(tmp_path_factory.mktemp("runs") / "run", embedded, 0)


@pytest.fixture(scope="session")
def asked(corpus: Path) -> items.Items:
    return items.read(open_corpus(str(corpus)))


@pytest.fixture(scope="module", autouse=True)
def short_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plots are empty and examples few in the modules that do not say `PAGES_ARE_WHOLE = True`: both take time."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "PAGES_ARE_WHOLE", False):
            undrawn.undraw_plots(patch.setattr)
            patch.setattr("trainer.evaluation.page.examples.EACH", 1)
        yield
