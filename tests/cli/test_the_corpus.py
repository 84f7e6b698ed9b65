"""Commands that take a corpus take the only one under ./corpora where none is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt_data.cli.common import corpora_here, the_corpus
from vpt_data.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def corpus(name: str, finished: bool = True) -> Path:
    folder = Path("corpora") / name
    folder.mkdir(parents=True)
    if finished:
        (folder / "manifest.json").write_text("{}")
    return folder


def test_what_was_given_is_taken_as_it_is() -> None:
    corpus("a")
    assert the_corpus(Path("elsewhere")) == Path("elsewhere")


def test_the_only_finished_corpus_is_found() -> None:
    one = corpus("one")
    corpus("half", finished=False)
    assert the_corpus(None) == one
    assert corpora_here() == [one]


def test_several_are_named() -> None:
    corpus("b"), corpus("a")
    with pytest.raises(UsageError) as caught:
        the_corpus(None)
    assert str(caught.value) == "Several corpora are under ./corpora: corpora/a, corpora/b; name one of them."


def test_none_says_how_to_get_one() -> None:
    with pytest.raises(UsageError) as caught:
        the_corpus(None)
    assert str(caught.value) == (
        "No corpus: there is no finished one under ./corpora; name the folder of one, or make one with "
        "`vpt-data build --recipe NAME`."
    )
