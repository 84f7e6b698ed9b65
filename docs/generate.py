"""Write the parts of the documentation that the code knows best: the commands, and the keys of recipes.

    python docs/generate.py

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written by hand.
`tests/test_docs.py` fails where a part is not what the code says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec

from trainer import evaluate as score_answers
from trainer import export as export_model
from trainer import generate as ask_model
from trainer import run as train_model
from vpt_data.cli.main import main
from vpt_data.recipe import Recipe
from vpt_data.recipe.key_reference import Key, keys, toml
from vpt_data.recipe.record import INHERITED
from vpt_data.report import markdown_code, markdown_table
from vpt_data.take import Columns, Take

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: The keys to begin with, whether the data are public or one's own.
FIRST = ("source", "dataset", "template", "task", "count", "files", "images", "columns")
#: Groups of the other keys of a take; a key in no group is listed with the last one.
SELECTION = ("forms", "again", "distinct_images", "share", "turns")
RENDERING = ("prompted", "k", "edge", "boxes", "crop_margin_cells", "control_tokens", "encoder", "ask", "system")
OWN = ("instances", "box_format", "box_units", "box_frame", "check_boxes", "rescale")


# Commands ---------------------------------------------------------------------------------------------------


def commands() -> str:
    """A section for each command: what it does, how it is called, its options."""
    parts = [_command(f"vpt-data {name}", command) for name, command in main.commands.items()]
    parts.append(_command("python -m trainer.run", train_model.main))
    parts.append(_command("python -m trainer.generate", ask_model.main))
    parts.append(_command("python -m trainer.export", export_model.main))
    parts.append(_command("python -m trainer.evaluate", score_answers.main))
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
    if option.multiple and "repeatable" not in words:
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


def first_keys() -> str:
    """The keys of a take to begin with."""
    return _table(Take, FIRST)


def other_keys() -> str:
    """The other keys of a take, in groups."""
    known = {*FIRST, *SELECTION, *RENDERING, *OWN}
    groups = {
        "Which records": SELECTION,
        "How they are rendered": RENDERING,
        "Own data": OWN,
        "Labels and the rest": [name for name in Take.__struct_fields__ if name not in known],
    }
    return "\n".join(f"### {title}\n\n{_table(Take, names)}" for title, names in groups.items())


def column_keys() -> str:
    """The keys under `columns`."""
    return _table(Columns, Columns.__struct_fields__)


def recipe_keys() -> str:
    """The keys of a whole recipe."""
    return _table(Recipe, Recipe.__struct_fields__)


def _table(struct: type[msgspec.Struct], names: Iterable[str]) -> str:
    listed = keys(struct)
    rows = [_row(listed[name], struct) for name in names if name in listed]
    return markdown_table(["key", "type", "default", "example", "meaning"], rows) + "\n"


def _row(key: Key, struct: type[msgspec.Struct]) -> list[str]:
    default = f"`{key.default}`" if key.default not in {"", '""', "[]", "{ }", "{  }"} else ""
    if key.required:
        default = "required"
    elif struct is Take and key.name in INHERITED:
        default = "the recipe's"
    example = "" if key.example in {"{ }", "{  }"} else f"`{key.name} = {key.example}`"
    return [f"`{key.name}`", markdown_code(map(toml, key.choices)) or key.type, default, example, key.meaning]


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
