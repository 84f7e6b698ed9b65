"""The head of a card: what the Hub would refuse is found without the Hub."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from helpers.cards import manifest
from huggingface_hub import DatasetCardData

from vpt_data import recipe
from vpt_data.corpus.card_head import LICENSES, Config, DataFiles, Head, fits, head_of, joined, problems
from vpt_data.take import Take
from vpt_data.upstream.catalog import upstreams
from vpt_data.upstream.licenses import licenses

FILES = ["data/train-00000-of-00001.parquet"]


def head(**more: Any) -> Head:
    """The head of a good card, or the same with `more` changed."""
    return msgspec.structs.replace(head_of(manifest(), recipe.load("mixvrt_dino"), upstreams()), **more)


def config(
    name: str = "default", path: str = "data/train-*.parquet", default: bool = True, split: str = "train"
) -> Config:
    return Config(name, [DataFiles(split, path)], default)


def test_a_good_head_has_no_problems_and_huggingface_hub_takes_it() -> None:
    assert problems(head(), FILES) == []
    loaded = yaml.safe_load(head().text().strip("-"))
    assert DatasetCardData(**loaded).to_dict() == loaded


@pytest.mark.parametrize("name", [name for name in recipe.names() if name not in {"mixvrt", "alignment"}])
def test_the_head_of_every_shipped_recipe_is_accepted(name: str) -> None:
    assert problems(head_of(manifest(name), recipe.load(name), upstreams()), FILES) == []


def own(license_id: str | None, language: str | None = None) -> Head:
    """The head of own data under a licence."""
    images = {"distinct": 1, "embedded": 0, "missing": 0, "licenses": []}
    part = {"take": "a", "source": "table", "dataset": "a", "template": "region", "expected": 1}
    made = manifest("mine", images=images, components=[part | {"read": 1, "repaired": {}, "dropped": {}, "kept": 1}])
    take = Take("table", "region", "general", license=license_id, language=language)
    return head_of(made, recipe.Recipe(name="mine", take={"a": take}), upstreams())


@pytest.mark.parametrize("name", licenses())
def test_every_licence_of_the_manifests_has_a_name_that_the_hub_takes(name: str) -> None:
    found = own(name)
    assert problems(found, FILES) == []
    assert (found.license == "other") == name.startswith("LicenseRef-")


@pytest.mark.parametrize(
    ("given", "name", "other"),
    [
        ("ODbL-1.0", "odbl", ""),
        ("ODC-By-1.0", "odc-by", ""),
        ("gpl-3.0", "gpl-3.0", ""),
        ("My own terms (v2)!", "other", "my-own-terms-v2"),
        ("LicenseRef-", "other", "own"),
        (None, "other", "unstated"),
    ],
)
def test_own_licences_are_named_as_the_hub_wants(given: str | None, name: str, other: str) -> None:
    found = own(given)
    assert (found.license, found.license_name) == (name, other)
    assert problems(found, FILES) == []


@pytest.mark.parametrize(("given", "expected"), [("de", "de"), ("pt_BR", "pt"), ("zh-Hans-CN", "zh"), ("EN", "en")])
def test_regions_of_languages_are_left_out(given: str, expected: str) -> None:
    assert own("MIT", given).language == [expected]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"language": ["german"]},
            "language 'german' is no ISO 639 code of two or three letters; give the takes one, such as `de`",
        ),
        (
            {"license": "CC-BY-4.0"},
            "license 'CC-BY-4.0' is none that the Hub knows; use one of its list, or `other` with a name",
        ),
        (
            {"license": "other", "license_name": "Our terms"},
            "license_name 'Our terms' is no name of small letters, digits, points and hyphens; correct it",
        ),
        (
            {"license_link": "javascript:alert(1)"},
            "license_link 'javascript:alert(1)' is no address; give one that begins with https://",
        ),
        ({"task_categories": ["chess"]}, "task_categories holds 'chess', which is no task of this package"),
        ({"configs": []}, "configs is empty, so that nobody can load a row; build a corpus with rows"),
        ({"configs": [config(default=False)]}, "exactly the first config has to be the default"),
        (
            {"configs": [config("a/b")]},
            "config_name 'a/b' is no name that `load_dataset` takes; use letters, digits, _, . and -",
        ),
        (
            {"configs": [config(split="a b")]},
            "config default: split 'a b' is there twice, or is no word that names a split",
        ),
    ],
)  # fmt: skip
def test_what_the_hub_would_refuse_is_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    assert problems(head(**wrong), FILES)[0] == sentence


def test_sizes_are_those_that_the_hub_knows() -> None:
    [sentence] = problems(head(size_categories=["1K - 10K"]), FILES)
    assert sentence.startswith("size_categories holds '1K - 10K'; the Hub knows 100B<n<1T, ")


def test_every_shard_fits_exactly_one_pattern() -> None:
    two = head(configs=[config("a", "a/data/train-*.parquet"), config("a", "b/data/train-*.parquet", False)])
    assert problems(two, ["a/data/train-0.parquet", "c/data/train-0.parquet"]) == [
        "two configs have the name 'a'; give one of the recipes another `name`",
        "config a: no file of the repository fits 'b/data/train-*.parquet'",
        "c/data/train-0.parquet fits 0 of the patterns of data_files; each shard has to fit exactly one",
    ]
    assert fits("data/train-0.parquet", "data/*") and not fits("data/x/train-0.parquet", "data/*")


def test_splits_of_which_one_begins_like_the_other_are_seen() -> None:
    files = [DataFiles("test", "data/test-*.parquet"), DataFiles("test.b", "data/t*.parquet")]
    found = problems(head(configs=[Config("default", files, True)]), ["data/test-00000-of-00001.parquet"])
    assert found == [
        "data/test-00000-of-00001.parquet fits 2 of the patterns of data_files; each shard has to fit exactly one"
    ]


def test_heads_are_joined() -> None:
    one, other = head(), own("MIT", "no")
    whole = joined("two", [one, other], 2_000_000, {"MIT", "CC-BY-4.0"}, [("first", "first/"), ("mine", "mine/")])
    assert (whole.language, whole.license_name, whole.size_categories) == (["en", "no"], "mixed", ["1M<n<10M"])
    assert [(each.config_name, each.default, each.data_files[0].path) for each in whole.configs] == [
        ("first", True, "first/data/train-*.parquet"),
        ("mine", False, "mine/data/train-*.parquet"),
    ]
    assert problems(whole, [f"{folder}/{FILES[0]}" for folder in ("first", "mine")]) == []
    loaded = yaml.safe_load(whole.text().strip("-"))
    assert [each.get("default") for each in loaded["configs"]] == [True, None], "and Norwegian is not false"
    assert loaded["language"] == ["en", "no"]


def test_licence_names_are_those_of_the_hub() -> None:
    assert len(LICENSES) == 69 and {"apache-2.0", "cc-by-nc-sa-4.0", "odbl", "unknown"} <= LICENSES
