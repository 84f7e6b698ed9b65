"""Every key of a recipe is described, and what its description says is true."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from vpt_data.recipe import Recipe
from vpt_data.recipe.key_reference import keys
from vpt_data.take import Columns, Take

STRUCTS = (Recipe, Take, Columns)
ALL = [(struct, name) for struct in STRUCTS for name in struct.__struct_fields__]


def value(text: str) -> Any:
    return tomllib.loads(f"value = {text}")["value"]


@pytest.mark.parametrize(("struct", "name"), ALL)
def test_a_key_says_in_one_sentence_what_it_means(struct: type[msgspec.Struct], name: str) -> None:
    key = keys(struct)[name]
    assert key.meaning[0].isupper() and key.meaning.endswith(".")
    assert key.type and "None" not in key.type


@pytest.mark.parametrize(("struct", "name"), [pair for pair in ALL if pair[1] != "take"])
def test_the_example_of_a_key_is_a_value_that_it_may_have(struct: type[msgspec.Struct], name: str) -> None:
    key = keys(struct)[name]
    example = value(key.example)
    assert msgspec.to_builtins(msgspec.convert(example, key.accepts)) == example
    assert not key.choices or example in key.choices
    assert key.example != key.default  # it would show nothing


@pytest.mark.parametrize(("struct", "name"), ALL)
def test_the_default_of_a_key_is_that_of_the_record(struct: type[msgspec.Struct], name: str) -> None:
    key, field = keys(struct)[name], next(f for f in msgspec.structs.fields(struct) if f.name == name)
    assert key.required == field.required
    if key.default and name != "columns":
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert value(key.default) == default


def test_kinds_of_values_are_plain_words() -> None:
    take = keys(Take)
    assert take["count"][:4] == ("count", 'whole number or "all"', '"all"', "98149")
    assert take["dataset"].type == "text or list of texts"
    assert take["turns"].choices == ("all", "first", "each")
    assert keys(Recipe)["encoder"].choices == ("dino", "sam", "clip")
