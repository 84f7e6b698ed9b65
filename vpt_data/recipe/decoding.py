"""A table as TOML or a manifest has it -> a recipe, or one sentence on what is wrong and what to write instead."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from vpt_data.errors import UsageError, unknown_name
from vpt_data.recipe.checks import check
from vpt_data.recipe.key_reference import COUNTED, Key, keys, toml
from vpt_data.recipe.record import Recipe
from vpt_data.take import Columns, Take


def decode(table: dict[str, Any], name: str) -> Recipe:
    """The recipe of a table; UsageError names the key that is wrong, what it holds and what it may hold."""
    where = f"Recipe {name}"
    _check_keys(table, Recipe, where, ())
    takes = table.get("take", {})
    for take, content in takes.items():
        if not isinstance(content, dict):
            raise UsageError(f"{where}: take.{take} is {_shown(content)}; write a table, [take.{take}].")
        _check_keys(content, Take, where, ("take", str(take)))
        _check_keys(content.get("columns", {}), Columns, where, ("take", str(take), "columns"))
    recipe = msgspec.convert(table, Recipe)
    check(recipe, name)
    return recipe


def _check_keys(table: dict[str, Any], struct: type[msgspec.Struct], where: str, place: tuple[str, ...]) -> None:
    known = keys(struct)
    for name in table:
        if name not in known:
            at = f" (at {'.'.join(place)})" if place else ""
            raise UsageError(f"{where}: {unknown_name('key', name, known)}{at}")
    for name, key in known.items():
        path = ".".join((*place, name))
        if name in table:
            _check_value(table[name], key, where, path)
        elif key.required:
            raise UsageError(f"{where}: {path} is missing; expected {_expected(key)}.")


def _check_value(value: Any, key: Key, where: str, path: str) -> None:
    if key.choices and isinstance(value, str):
        if value not in key.choices:
            hint = str(unknown_name(f"value of {key.name}", value, key.choices)).rstrip(".")
            raise UsageError(f"{where}: {hint} (at {path}).")
        return
    # The tables inside are looked at by themselves, so that a message names the key that is wrong.
    accepts = dict[str, Any] if key.type == "table" else key.accepts
    try:
        msgspec.convert(value, accepts)
    except msgspec.ValidationError:
        raise UsageError(f"{where}: {path} is {_shown(value)}; expected {_expected(key)}.") from None


def _expected(key: Key) -> str:
    """What to write: `a whole number or "all", for instance count = 98149`."""
    if key.choices:
        return f"one of {', '.join(key.choices)}, for instance {key.name} = {key.example}"
    kinds = " or ".join(f"a {kind}" if kind in COUNTED else kind for kind in key.type.split(" or "))
    return f"{kinds}, for instance {key.name} = {key.example}"


def _shown(value: Any) -> str:
    """A wrong value as its writer knows it, cut where it is long."""
    try:
        text = toml(value)
    except TypeError:
        text = json.dumps(str(value))  # dates and times, which TOML knows and no key takes
    return text if len(text) <= 60 else f"{text[:57]}..."
