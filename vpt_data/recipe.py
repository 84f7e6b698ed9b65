"""Recipe files: strict TOML, typed, with one level of meaning per key.

A recipe is found by name among the shipped ones or by path, may extend another, and is resolved before use: every
take then carries its own value of every rule (`k`, `edge`, `prompted`, ...), so that nothing downstream looks twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import msgspec

from vpt_data.errors import UsageError, unknown_name

EncoderName = Literal["dino", "sam", "clip"]
Template = Literal["region", "reencode", "plain", "alignment", "textbox"]
Task = Literal["text_ocr", "spatial", "general", "fine_grained", "instruction", "alignment"]
BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
BoxUnits = Literal["pixel", "fraction", "permille"]


class Columns(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Which column of an own file holds what; only `image`, `question` and `answer` are needed.

    `box` is one column that holds a list (one box or a list of boxes), or four columns.
    """

    image: str = "image"
    question: str = "question"
    answer: str | list[str] = "answer"
    box: str | list[str] | None = None
    label: str | None = None
    category: str | None = None
    width: str | None = None
    height: str | None = None
    id: str | None = None


class Take(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What to take from one source and how to render it. None means: as the recipe says."""

    source: str
    template: Template
    task: Task
    dataset: str | list[str] | None = None
    count: int | Literal["all"] = "all"
    forms: list[str] | None = None
    distinct_images: bool = False
    share: float | None = None  # at most this share of what is offered, so that a small raw root is not used up
    turns: Literal["all", "first", "each"] | None = None
    expected: Literal["region", "reencode", "none"] | None = None
    ask: str | None = None
    split: str | None = None
    encoder: EncoderName | None = None
    prompted: bool | None = None
    k: int | None = None
    edge: Literal["floor", "inside", "legacy"] | None = None
    boxes: Literal["union", "each"] | None = None
    crop_margin_cells: int | None = None
    control_tokens: int | None = None
    license: str | None = None
    language: str | None = None
    weight: float = 1.0
    system: str | None = None
    rescale: bool = False  # embed mode: take a resized copy of an image, and resize the boxes with it
    # own data (sources `table` and `coco_boxes`): files relative to the raw root, globs allowed
    files: list[str] | None = None
    instances: str | None = None  # `coco_boxes`: the COCO-format JSON that the questions in `files` are joined to
    images: str = ""
    columns: Columns = Columns()
    box_format: BoxFormat = "xyxy"
    box_units: BoxUnits = "pixel"


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A whole corpus: rules for all takes, then the takes in the order in which they claim records."""

    name: str = ""
    extends: str | None = None
    description: str = ""
    notes: list[str] = []
    encoder: EncoderName | None = None
    seed: int = 0
    split: str = "train"
    shards: int | None = None
    exclude: str | None = None
    k: int = 8
    edge: Literal["floor", "inside", "legacy"] = "floor"
    boxes: Literal["union", "each"] = "union"
    crop_margin_cells: int = 0
    control_tokens: int = 1
    prompted: bool = True
    tolerance: float = 0.01
    take: dict[str, Take] = {}

    def digest(self) -> str:
        """The sha256 of everything the recipe says, in one canonical form."""
        return hashlib.sha256(msgspec.json.encode(self.recorded(), order="sorted")).hexdigest()

    def recorded(self) -> Recipe:
        """The recipe as a corpus tells of it: of the one it excludes the file name, not where it lies on this machine.

        A corpus has the sha256 of that one as well.
        """
        return msgspec.structs.replace(self, exclude=self.exclude and self.exclude.rpartition("/")[2])


#: Rules a take inherits from its recipe where it says nothing itself.
INHERITED = ("split", "encoder", "prompted", "k", "edge", "boxes", "crop_margin_cells", "control_tokens")
#: The least and the most that these rules may be; no grid is that fine, and beyond 32 bits nothing can be stored.
_BOUNDS = {"k": (1, 1000), "crop_margin_cells": (0, 1000), "control_tokens": (0, 1000)}
_NAME = re.compile(r"[A-Za-z0-9_]+")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.+?)`(?: - at `(?P<where>.+)`)?$")


def shipped(folder: Literal["recipes", "manifests"]) -> Path:
    """Where the recipes or manifests that come with the package lie (in a wheel, or beside the source)."""
    package = Path(str(resources.files("vpt_data")))
    packed = package / f"_{folder}"
    return packed if packed.is_dir() else package.parent / folder


def names() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return sorted(path.stem for path in shipped("recipes").glob("*.toml"))


def describe(name: str) -> str:
    """The description of a shipped recipe, in one line."""
    return str(_merged(name, Path(), ()).get("description", ""))


def load(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The resolved recipe `name` (a shipped name, or a path ending in .toml), with `key=value` overrides."""
    table = _merged(name, Path(), ())
    for override in overrides:
        _set(table, override)
    table.pop("extends", None)
    recipe = decode(table, name)
    takes = {key: _inherit(take, recipe) for key, take in recipe.take.items()}
    return msgspec.structs.replace(recipe, take=takes)


def as_toml(recipe: Recipe) -> str:
    """A resolved recipe as the text of a recipe file; `load` makes the same recipe of it."""
    content = msgspec.to_builtins(recipe)
    takes = content.pop("take")
    parts = [_toml_lines(content), *(f"[take.{name}]\n{_toml_lines(take)}" for name, take in takes.items())]
    return "\n".join(parts)


def _toml_lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    """JSON and TOML write text, numbers, booleans and lists of them in the same way, tables in another."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(inner)}' for key, inner in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


def _locate(name: str, beside: Path) -> Path:
    if name.endswith(".toml"):
        path = beside / name
        if not path.is_file():
            raise UsageError(
                f"{path}: there is no such recipe file; give a path, or a name that `vpt-data recipes` lists."
            )
        return path
    sibling, own = beside / f"{name}.toml", shipped("recipes") / f"{name}.toml"
    if beside != Path() and sibling.is_file():
        return sibling
    if not own.is_file():
        raise unknown_name("recipe", name, names())
    return own


def _merged(name: str, beside: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _locate(name, beside)
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` leads back to the recipe itself; let one of them extend nothing.")
    table = read_table(path)
    table.setdefault("name", path.stem)
    if isinstance(excluded := table.get("exclude"), str) and excluded:
        found = _locate(excluded, path.parent)
        if found != shipped("recipes") / f"{excluded}.toml":
            table["exclude"] = found.as_posix()
    base_name = table.get("extends")
    if not isinstance(base_name, str):
        return table
    base = _merged(base_name, path.parent, (*seen, path.resolve()))
    takes = _merge_takes(base.get("take", {}), table.get("take", {}))
    return {**base, **table, "take": takes}


def _merge_takes(base: Any, own: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    merged = {name: dict(take) if isinstance(take, Mapping) else take for name, take in base.items()}
    for name, take in own.items():
        both = isinstance(take, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **take} if both else take
    return merged


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file, or one sentence on why it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML ({error}).") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error


def literal(text: str) -> Any:
    """The value that `--set key=TEXT` means: what TOML reads it as, else the text itself.

    >>> literal("1e-5"), literal("[1, 2]"), literal("union")
    (1e-05, [1, 2], 'union')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UsageError(f"--set {override!r}: expected key=value, for instance take.gqa.count=1000.")
    value, place = literal(text), table
    for depth, part in enumerate(path[:-1]):
        if part not in place and depth == 1 and path[0] == "take":
            raise unknown_name("take", part, place)
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {override!r}: {'.'.join(path[: depth + 1])} is a value, not a table.")
    place[path[-1]] = value


def decode(table: dict[str, Any], name: str) -> Recipe:
    """The recipe of a table as TOML or a manifest has it; a UsageError says what cannot be."""
    try:
        recipe = msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        message = str(error).replace("take[...]", f"take.{_faulty_take(table)}")
        raise UsageError(f"Recipe {name}: {_explain(message)}") from error
    _check(recipe, name)
    return recipe


def _faulty_take(table: dict[str, Any]) -> str:
    """The first take that does not decode; msgspec says only that there is one."""
    takes = table.get("take")
    for name, take in takes.items() if isinstance(takes, dict) else ():
        try:
            msgspec.convert(take, Take)
        except msgspec.ValidationError:
            return str(name)
    return "..."


#: The values of keys that know only a few.
_CHOICES: dict[str, tuple[str, ...]] = {
    "template": get_args(Template),
    "task": get_args(Task),
    "encoder": get_args(EncoderName),
    "edge": ("floor", "inside", "legacy"),
    "boxes": ("union", "each"),
    "turns": ("all", "first", "each"),
    "expected": ("region", "reencode", "none"),
    "box_format": get_args(BoxFormat),
    "box_units": get_args(BoxUnits),
}
_CHOICE = re.compile(r"Invalid enum value '(?P<value>.*)' - at `(?P<where>.+)`$")


def _explain(message: str) -> str:
    """msgspec's message as a sentence, with the nearest known key where a key is unknown."""
    unknown = _UNKNOWN.match(message)
    if choice := _CHOICE.match(message):
        key = choice["where"].rpartition(".")[2]
        said = str(unknown_name(f"value of {key}", choice["value"], _CHOICES[key])).rstrip(".")
        return f"{said} (at {choice['where'].removeprefix('$.')})."
    if not unknown:
        return f"{message}."
    where = unknown["where"] or "$"
    kind: type[msgspec.Struct] = Recipe
    if ".columns" in where:
        kind = Columns
    elif ".take" in where:
        kind = Take
    hint = str(unknown_name("key", unknown["field"], kind.__struct_fields__))
    return f"{hint}" if where == "$" else f"{hint} (at {where.removeprefix('$.')})"


def _check(recipe: Recipe, name: str) -> None:
    """What types cannot say; each message names the take and the key."""
    for key, take in recipe.take.items():
        where = f"Recipe {name}, take {key}"
        if not _NAME.fullmatch(key):
            raise UsageError(f"{where}: a take's name may hold letters, digits and _ only.")
        if isinstance(take.count, int) and take.count < 0:
            raise UsageError(f'{where}: count is {take.count}; expected 0 or more, or "all".')
        if take.share is not None and not 0 < take.share <= 1:
            raise UsageError(f"{where}: share is {take.share}; expected more than 0 and at most 1.")
        if take.template in {"reencode", "alignment"} and not (take.encoder or recipe.encoder):
            raise UsageError(f"{where}: template {take.template} needs an encoder; set encoder = dino, sam or clip.")
        if take.rescale and take.files and not take.instances and take.columns.width is None:
            raise UsageError(
                f"{where}: rescale goes by the size that the boxes were drawn on; set columns.width and columns.height."
            )
        if take.turns == "each" and take.template not in {"reencode", "plain"}:
            raise UsageError(f"{where}: turns = each goes with the templates reencode and plain only.")
        _check_bounds(take, where)
    _check_bounds(recipe, f"Recipe {name}")
    if not recipe.take:
        raise UsageError(f"Recipe {name}: it has no takes; add at least one [take.NAME] table.")
    if recipe.shards is not None and recipe.shards < 1:
        raise UsageError(f"Recipe {name}: shards is {recipe.shards}; expected 1 or more.")
    if not re.fullmatch(r"\w+(\.\w+)*", recipe.split):
        raise UsageError(f"Recipe {name}: split {recipe.split!r} may hold letters, digits, _ and . only.")


def _check_bounds(rules: Recipe | Take, where: str) -> None:
    for key, (least, most) in _BOUNDS.items():
        value = getattr(rules, key)
        if value is not None and not least <= value <= most:
            raise UsageError(f"{where}: {key} is {value}; expected {least} to {most}.")


def _inherit(take: Take, recipe: Recipe) -> Take:
    values = {key: getattr(recipe, key) for key in INHERITED if getattr(take, key) is None}
    turns = take.turns or ("all" if take.template == "plain" and not take.expected else "first")
    return msgspec.structs.replace(take, turns=turns, **values)


def own_dataset(take: Take) -> str:
    """The data set of a take that names its own files: its `dataset`, else what the files are called.

    Parts of one file are one data set: `receipts-1.csv`, `receipts-2.csv` and `receipts-*.csv` are all `receipts`.
    """
    if isinstance(take.dataset, str):
        return take.dataset
    stem = PurePosixPath((take.files or [""])[0].removesuffix(".gz")).stem
    return re.sub(r"([-_.](part)?[-_.]?(\d+(-of-\d+)?|[*?\[].*))$", "", stem).rstrip("*?-_.") or "own"


def datasets_of(take: Take) -> list[str] | None:
    """The data sets a take names, or None for all of its source."""
    return [take.dataset] if isinstance(take.dataset, str) else take.dataset
