"""croissant.json: the library of the vocabulary accepts it, and reads the rows of a corpus by it."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers import small_corpora

from vpt_data import recipe as recipes
from vpt_data.corpus.reader import open_corpus
from vpt_data.exchange.hub import croissant, layout
from vpt_data.exchange.hub.responsible import responsible
from vpt_data.schema import SAMPLE
from vpt_data.upstream.catalog import upstreams

#: What is left out on purpose: nothing in a corpus knows its date, and its version is a tag of the repository.
LEFT_OUT = {"https://schema.org/datePublished", "https://schema.org/version"}


def described(*places: Path) -> list[tuple[layout.Part, recipes.Recipe]]:
    parts = layout.parts([open_corpus(str(place)) for place in places])
    return [(part, recipes.decode(part.manifest.recipe.resolved, part.config)) for part in parts]


def text(*places: Path) -> str:
    return croissant.text(described(*places), "org/name")


@pytest.fixture(scope="module", params=["reference", "embed"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp(request.param), mode=request.param)


def data_set(file: Path, corpus: Path) -> Any:
    """The data set as mlcroissant sees it, its repository being a folder."""
    with warnings.catch_warnings():
        # What the packages that it needs have to say of each other is no finding of ours.
        warnings.simplefilter("ignore")
        import mlcroissant

        logging.getLogger("absl").setLevel(logging.ERROR)
        return mlcroissant.Dataset(str(file), mapping={"repo": corpus})


def test_mlcroissant_accepts_it_and_reads_the_rows(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "croissant.json").write_text(text(corpus), encoding="utf-8")
    found = data_set(tmp_path / "croissant.json", corpus)
    issues = found.metadata.ctx.issues
    assert not issues.errors
    assert {left for left in LEFT_OUT for warning in issues.warnings if left in warning} == LEFT_OUT
    assert len(issues.warnings) == len(LEFT_OUT)
    rows = {row["id"]: row for row in open_corpus(str(corpus)).rows()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = list(found.records("default"))
    assert {record["default/id"].decode() for record in read} == rows.keys()
    for record in read:
        row = rows[record["default/id"].decode()]
        said = [turn["default/messages/content"].decode() for turn in record["default/messages"]]
        assert said == [turn["content"] for turn in row["messages"]]
        assert [path.decode() for path in record["default/images/path"]] == [each["path"] for each in row["images"]]
        if row["images"] and row["images"][0]["bytes"]:
            info = row["image_info"][0]
            assert record["default/images/bytes"][0].size == (info["width"], info["height"])
        assert ("default/images/bytes" in record) == open_corpus(str(corpus)).embed


def test_every_column_is_described(corpus: Path) -> None:
    [records] = json.loads(text(corpus))["recordSet"]
    names = {field["@id"].split("/")[1] for field in records["field"]}
    assert names == set(SAMPLE.names)
    assert all(field["description"].endswith(".") for field in records["field"])


def test_it_is_the_same_each_time_and_has_no_date(corpus: Path) -> None:
    assert text(corpus) == text(corpus)
    assert "date" not in {key.lower()[:4] for key in json.loads(text(corpus))}


def test_statements_follow_from_manifest_and_recipe(corpus: Path) -> None:
    found = responsible(described(corpus), upstreams())
    assert found["rai:dataUseCases"] == ["Research on models that decide to look again: training and evaluation."]
    assert found["rai:dataCollectionMissingData"] == (
        "tiny: of 47 records that were read 2 were not kept; 0 of 21 images were not found."
    )
    limits = found["rai:dataLimitations"]
    assert ("tiny names its images and does not hold them." in limits) == (not open_corpus(str(corpus)).embed)
    assert any("OpenAI" in bias for bias in found["rai:dataBiases"])
    assert "rai:annotatorDemographics" not in found


def test_warnings_of_the_manifest_are_limits(corpus: Path, tmp_path: Path) -> None:
    place = small_corpora.build(tmp_path)
    small_corpora.change_manifest(place, lambda made: setattr(made, "limited", True))
    small_corpora.change_manifest(place, lambda made: setattr(made, "not_checked", ["a.json"]))
    limits = responsible(described(place), upstreams())["rai:dataLimitations"]
    assert limits[:2] == [
        "tiny is a trial: only the beginning of each input file was read.",
        "tiny may show images of these evaluation files, which were not there: a.json.",
    ]


def test_several_corpora_are_several_record_sets(corpus: Path, tmp_path: Path) -> None:
    other = small_corpora.build(tmp_path / "other", recipe=f'name = "other"\n{small_corpora.RECIPE}')
    content = json.loads(text(corpus, other))
    assert [records["@id"] for records in content["recordSet"]] == ["tiny", "other"]
    assert [files["@id"] for files in content["distribution"]] == ["repo", "files-tiny", "files-other"]
    assert content["distribution"][2]["includes"][0] == "other/data/train-*.parquet"
    assert content["url"] == "https://huggingface.co/datasets/org/name"


def test_own_data_has_the_language_that_its_take_states(corpus: Path) -> None:
    [(part, _)] = described(corpus)
    loaded = recipes.load("sample")
    for stated, expected in ((None, []), ("de-AT", ["de-AT"])):
        take = msgspec.structs.replace(loaded.take["own_signs"], language=stated)
        own = msgspec.structs.replace(loaded, take={"own_signs": take})
        assert json.loads(croissant.text([(part, own)], "org/name"))["inLanguage"] == expected
