"""Write the parts of the documentation that the code knows best: the commands, and the keys of recipes.

    python docs/generate.py

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written by hand.
`tests/test_docs.py` fails where a part is not what the code says.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

from trainer import generate as ask_model
from trainer import run as train_model
from vpt_data.cli.main import main
from vpt_data.recipe import INHERITED, Recipe
from vpt_data.report import markdown_code, markdown_table

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: The keys to begin with, whether the data are public or one's own.
FIRST = ("source", "dataset", "template", "task", "count", "files", "images", "columns")
#: Groups of the other keys of a take; a key in no group is listed with the last one.
SELECTION = ("forms", "distinct_images", "share", "turns")
RENDERING = ("prompted", "k", "edge", "boxes", "crop_margin_cells", "control_tokens", "encoder", "ask", "system")
OWN = ("instances", "box_format", "box_units", "box_frame", "rescale")
WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", types.NoneType: ""}


# Commands ---------------------------------------------------------------------------------------------------


def commands() -> str:
    """A section for each command: what it does, how it is called, its options."""
    parts = [_command(f"vpt-data {name}", command) for name, command in main.commands.items()]
    parts.append(_command("python -m trainer.run", train_model.main))
    parts.append(_command("python -m trainer.generate", ask_model.main))
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text = re.sub(r"\s+", " ", command.help or "").strip()
    rows = [_option(param, context) for param in command.params if isinstance(param, click.Option) and not param.hidden]
    return f"## {name}\n\n{text}\n\n```text\n{usage}\n```\n\n{markdown_table(['option', 'value', 'meaning'], rows)}\n"


def _option(option: click.Option, context: click.Context) -> list[str]:
    flags = markdown_code([*option.opts, *option.secondary_opts])
    words = option.help or ""
    if option.required:
        words += " Required."
    if option.show_default:
        words += f" Default: `{_default(option, context)}`."
    if option.multiple:
        words += " Can be repeated."
    return [flags, _value(option, context), words.strip()]


def _value(option: click.Option, context: click.Context) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return markdown_code(map(str, option.type.choices))
    if isinstance(option.type, click.types.IntParamType):
        return f"`{option.metavar or 'N'}`"
    return f"`{option.make_metavar(context)}`"


def _default(option: click.Option, context: click.Context) -> str:
    value = option.get_default(context)
    if option.is_flag and option.secondary_opts:
        return (option.opts if value else option.secondary_opts)[0]
    return str(value)


# Keys of recipes --------------------------------------------------------------------------------------------


def take_type() -> type[msgspec.Struct]:
    """The type of a take."""
    return _plain(get_args(get_type_hints(Recipe)["take"])[-1])


def column_type() -> type[msgspec.Struct]:
    """The type of `columns` in a take."""
    return _plain(get_type_hints(take_type())["columns"])


def first_keys() -> str:
    """The keys of a take that everybody needs."""
    return _keys(take_type(), FIRST)


def other_keys() -> str:
    """The other keys of a take, in groups."""
    known = {*FIRST, *SELECTION, *RENDERING, *OWN}
    groups = {
        "Which records": SELECTION,
        "How they are rendered": RENDERING,
        "Own data": OWN,
        "Labels and the rest": [name for name in take_type().__struct_fields__ if name not in known],
    }
    return "\n".join(f"### {title}\n\n{_keys(take_type(), names)}" for title, names in groups.items())


def column_keys() -> str:
    """The keys under `columns`."""
    return _keys(column_type(), column_type().__struct_fields__)


def recipe_keys() -> str:
    """The keys of a whole recipe."""
    return _keys(Recipe, Recipe.__struct_fields__)


def _keys(kind: type[msgspec.Struct], names: Iterable[str]) -> str:
    rows = [_key(field, kind) for field in sorted_fields(kind, names)]
    return markdown_table(["key", "type", "default", "example", "meaning"], rows) + "\n"


def sorted_fields(kind: type[msgspec.Struct], names: Iterable[str]) -> Iterator[msgspec.structs.FieldInfo]:
    """The fields of a type with these names, in the order of the names."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    return (fields[name] for name in names if name in fields)


def _key(field: msgspec.structs.FieldInfo, kind: type[msgspec.Struct]) -> list[str]:
    meta = meta_of(kind, field.name)
    example = f"`{field.name} = {_toml(meta.examples[0])}`" if meta.examples else ""
    words = _type(get_type_hints(kind)[field.name])
    return [f"`{field.name}`", words, _field_default(field, kind), example, meta.description or ""]


def meta_of(kind: type[msgspec.Struct], name: str) -> msgspec.Meta:
    """Meaning and example of a key."""
    hint = get_type_hints(kind, include_extras=True)[name]
    return next((part for part in get_args(hint) if isinstance(part, msgspec.Meta)), msgspec.Meta())


def _field_default(field: msgspec.structs.FieldInfo, kind: type[msgspec.Struct]) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None and kind is take_type() and field.name in INHERITED:
        return "that of the recipe"
    if value is None or value in ("", [], {}, ()) or isinstance(value, msgspec.Struct):
        return ""
    return f"`{_toml(value)}`"


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _type(hint: Any) -> str:
    """A type in words: `int | Literal["all"]` is "whole number or `"all"`"."""
    hint, parts = _plain(hint), get_args(_plain(hint))
    origin = get_origin(hint)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in parts)
    if origin in {Union, types.UnionType}:
        return " or ".join(filter(None, map(_type, parts)))
    if origin in {list, tuple}:
        return f"list of {_type(parts[0])}"
    return WORDS.get(hint, "table")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(inner)}' for name, inner in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


# Pages ------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "first-keys": first_keys,
    "other-keys": other_keys,
    "column-keys": column_keys,
    "recipe-keys": recipe_keys,
}


def generated(page: str) -> str:
    """The text of a page with its generated parts as the code says them now."""
    return PART.sub(lambda found: found[1] + "\n" + PARTS[found["name"]]() + "\n" + found[3], page)


def write() -> None:
    """Bring every page up to date."""
    for path in sorted(DOCS.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        if (new := generated(old)) != old:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    write()
