"""Every key of a recipe with its type, default, example and meaning, as messages and the docs need them."""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.sources import SOURCES


class Key(NamedTuple):
    """One key: `type` in plain words, `default` and `example` as TOML writes them ("" where the key is left out).

    choices are the only values that a text may have, where there are but some.
    """

    name: str
    type: str
    default: str
    example: str
    meaning: str
    required: bool
    choices: tuple[str, ...]
    accepts: Any


#: Keys whose values are entries of a table elsewhere.
_TABLES: Mapping[str, Mapping[str, object]] = {"template": TEMPLATES, "encoder": ENCODERS, "source": SOURCES}
#: The kinds of value that a sentence puts "a" before.
COUNTED = ("whole number", "number", "list of texts", "table")
_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def keys(struct: type[msgspec.Struct]) -> dict[str, Key]:
    """The keys of `Recipe`, `Take` or `Columns` in their order."""
    return {field.name: _key(field, hint) for field, hint in _fields(struct)}


@functools.cache  # a recipe asks once for each take, and the answer is slow
def _fields(struct: type[msgspec.Struct]) -> list[tuple[msgspec.structs.FieldInfo, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    return [(field, hints[field.name]) for field in msgspec.structs.fields(struct)]


def _key(field: msgspec.structs.FieldInfo, hint: Any) -> Key:
    accepts, meta = get_args(hint)
    choices = tuple(_TABLES[field.name]) if field.name in _TABLES else tuple(_literals(accepts))
    default = "" if field.required else _default(field)
    words = " or ".join(dict.fromkeys(_words(accepts, bool(choices))))
    return Key(field.name, words, default, toml(meta.examples[0]), meta.description, field.required, choices, accepts)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT:
        return toml(msgspec.to_builtins(field.default_factory()))
    return "" if field.default is None else toml(msgspec.to_builtins(field.default))


def _words(accepts: Any, chosen: bool) -> Iterator[str]:
    """The kinds of value that a type accepts, `null` left out: TOML has none.

    >>> list(_words(int | Literal["all"], False)), list(_words(list[str] | None, False))
    (['whole number', '"all"'], ['list of texts'])
    """
    origin = get_origin(accepts)
    if origin in (Union, types.UnionType):
        for part in get_args(accepts):
            yield from _words(part, chosen)
    elif origin is Literal:
        yield from (toml(value) for value in get_args(accepts))
    elif origin is list:
        yield "list of texts"
    elif origin is Annotated:
        yield from _words(get_args(accepts)[0], chosen)
    elif accepts is not types.NoneType:
        yield _WORDS.get(accepts, "table")


def _literals(accepts: Any) -> Iterator[str]:
    """The texts of a type that accepts nothing but some texts."""
    parts = get_args(accepts) if get_origin(accepts) in (Union, types.UnionType) else (accepts,)
    if all(get_origin(part) is Literal or part is types.NoneType for part in parts):
        for part in parts:
            yield from get_args(part)


def toml(value: Any) -> str:
    """A value as TOML writes it: text, numbers, booleans and lists as JSON does, tables in another way.

    >>> toml({"k": [1, "a"]})
    '{ k = [1, "a"] }'
    """
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(inner)}' for key, inner in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)
