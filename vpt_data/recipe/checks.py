"""What the types of a recipe cannot say, checked as a whole when it is loaded, before any file is opened.

Each message names the take and the key, what was found, and what to write instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from vpt_data import store
from vpt_data.dialogue.ask import uses_labels
from vpt_data.dialogue.rule import render_rule
from vpt_data.dialogue.templates import TEMPLATES, needs_region
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import UsageError, unknown_name
from vpt_data.recipe.record import HOLDOUT, Recipe, resolved
from vpt_data.sources import SOURCES
from vpt_data.take import Take

#: The least and the most that whole numbers may be. No grid is finer, rows are counted in 64 bits, and the names of
#: shards have five digits.
_BOUNDS = {
    "k": (1, 1000),
    "crop_margin_cells": (0, 1000),
    "control_tokens": (0, 1000),
    "seed": (-(2**63), 2**63 - 1),
    "shards": (1, 99_999),
}
_MOST_ROWS = 2**63 - 1
_UNSET = Take(source="", template="", task="general")
_TAKE_NAME = re.compile(r"[A-Za-z0-9_]+")
_CORPUS_NAME = re.compile(r"\w[\w.-]*")
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")


def check(recipe: Recipe, name: str) -> None:
    """Raise UsageError with the first thing that cannot be."""
    where = f"Recipe {name}"
    for problem in _of_recipe(recipe):
        raise UsageError(f"{where}: {problem}.")
    whole = resolved(recipe)
    for key, take in recipe.take.items():
        for problem in _of_take(key, take, whole.take[key]):
            raise UsageError(f"{where}, take {key}: {problem.rstrip('?.')}{'?' if problem.endswith('?') else '.'}")
        render_rule(key, whole.take[key], SOURCES[take.source].conversations)  # has rules of its own
    _check_grids(whole, where)


def _of_recipe(recipe: Recipe) -> Iterator[str]:
    if recipe.name and not _CORPUS_NAME.fullmatch(recipe.name):
        yield f'name {recipe.name!r} becomes the name of a folder; set name to letters, digits, _, . and - ("my_mix")'
    yield from _wrong_split(recipe.split)
    yield from _out_of_bounds(recipe)
    if not 0 <= recipe.tolerance <= 1:
        yield f"tolerance is {recipe.tolerance}; expected a share from 0 to 1"
    if recipe.holdout is not None and not 0 < recipe.holdout < 1:
        yield f"holdout is {recipe.holdout}; expected a share of more than 0 and less than 1, for instance 0.02"
    if recipe.holdout is not None and HOLDOUT in {recipe.split, *(take.split for take in recipe.take.values())}:
        yield f"a split is called {HOLDOUT!r}, which is the split that the key holdout makes; give it another name"
    earlier: dict[str, Take] = {}
    for name, take in recipe.take.items():
        if take.again is not None:
            yield from _wrong_again(name, take, earlier)
        earlier[name] = take
    if not recipe.take:
        yield "it has no takes; add at least one [take.NAME] table"


def _of_take(name: str, take: Take, whole: Take) -> Iterator[str]:
    """Problems of a take as it is written; `whole` is the same take with what it inherits."""
    if not _TAKE_NAME.fullmatch(name):
        yield "a take's name may hold letters, digits and _ only"
    if take.split is not None:
        yield from _wrong_split(take.split)
    yield from _out_of_bounds(take)
    yield from _wrong_amount(take)
    template = TEMPLATES[take.template]
    if template.needs_encoder and not whole.encoder:
        yield f"template {take.template} needs an encoder; set encoder to one of {', '.join(ENCODERS)}"
    source, dataset = template.records
    if source and (take.source != source or (dataset and take.dataset != dataset)):
        wanted = f'source = "{source}"' + (f' and dataset = "{dataset}"' if dataset else "")
        yield f"template {take.template} is for records that hold what it says; set {wanted}, or another template"
    if take.turns == "each" and not template.splits:
        can = " and ".join(known for known, entry in TEMPLATES.items() if entry.splits)
        yield f"turns = each goes with the templates {can} only"
    if take.turns == "all" and take.expected:
        yield 'turns = all keeps whole conversations, and evaluation rows hold one question; set turns = "first"'
    yield from _wrong_source(take)


def _wrong_again(name: str, take: Take, earlier: dict[str, Take]) -> Iterator[str]:
    """It can have again what a take before it keeps, of the files that both read."""
    base = earlier.get(str(take.again))
    where = f"take {name}: again names {take.again!r}"
    if base is None:
        yield f"{where}, which is no take before it; name one of: {', '.join(earlier) or 'there is none'}"
    elif (base.source, base.files, base.images, base.columns) != (take.source, take.files, take.images, take.columns):
        yield f"{where}, which reads other files; give both the same source and files"


def _wrong_split(split: str) -> Iterator[str]:
    if not _SPLIT_NAME.fullmatch(split):
        yield f"split {split!r} may hold letters, digits, _ and . only"


def _out_of_bounds(rules: Recipe | Take) -> Iterator[str]:
    for key, (least, most) in _BOUNDS.items():
        value = getattr(rules, key, None)
        if value is not None and not least <= value <= most:
            yield f"{key} is {value}; expected {least} to {most}"


def _wrong_amount(take: Take) -> Iterator[str]:
    if isinstance(take.count, int) and not 0 <= take.count <= _MOST_ROWS:
        yield f'count is {take.count}; expected 0 or more, or "all"'
    if take.share is not None and not 0 < take.share <= 1:
        yield f"share is {take.share}; expected more than 0 and at most 1"
    if not 0 <= take.weight < math.inf:
        yield f"weight is {take.weight}; expected a number of 0 or more"


def _wrong_source(take: Take) -> Iterator[str]:
    """What would let no record through, or say something of data that are not there."""
    source = SOURCES[take.source]
    for key in ("dataset", "forms", "files"):
        if getattr(take, key) == []:
            yield f"{key} is empty, so that no record would fit; name some, or remove the key"
    for form in take.forms or []:
        if form not in source.forms:
            yield str(unknown_name(f"form of source {take.source}", form, source.forms)).rstrip(".")
    if source.own_files:
        yield from _wrong_own_data(take)
        return
    for key in ("files", "instances", "images", "columns", "box_format", "box_units", "box_frame"):
        if getattr(take, key) != getattr(_UNSET, key):
            own = " or ".join(known for known, entry in SOURCES.items() if entry.own_files)
            yield f"{key} is for own data, and source is {take.source}; remove it, or set source to {own}"
    if needs_region(take) and not source.regions:
        yield (
            f"template {take.template} needs boxes, and source {take.source} has none, so that it could never give a "
            "row; choose another template or source"
        )


def _wrong_own_data(take: Take) -> Iterator[str]:
    columns = take.columns
    if not take.files:
        yield f'source {take.source} needs files = ["..."], relative to the raw root'
    for key, places in (("files", take.files or []), ("instances", [take.instances]), ("images", [take.images])):
        for place in places:
            if place and store.is_unsafe(place):
                yield f"{key}: {place!r} leads out of the raw root; give a path relative to it"
    if columns.category is not None and take.source == "table":
        yield "columns.category goes with source coco_boxes; a table has columns.label"
    if uses_labels(take.ask) and take.source == "table" and columns.label is None:
        yield "`ask` names the label of the boxes; set columns.label to the column that holds it"
    if columns.answer == []:
        yield "columns.answer is empty; name the column, or the columns, with the answers"
    if isinstance(columns.box, list) and len(columns.box) != 4:
        yield f"columns.box lists {len(columns.box)} columns; name four, or the one that holds lists"
    if (columns.width is None) != (columns.height is None):
        yield "only one of columns.width and columns.height is set; set both or neither"
    if take.box_frame is not None and len(take.box_frame) != 2:
        yield f"box_frame lists {len(take.box_frame)} entries; name two columns, or two numbers: width, height"
    if take.box_frame is not None and take.box_units != "pixel":
        yield f"box_frame goes with box_units pixel, and box_units is {take.box_units}; set one of them only"
    if take.source == "coco_boxes" and take.instances is None:
        yield 'source coco_boxes needs instances = "...", the COCO-format JSON, relative to the raw root'
    if take.source == "table" and take.instances is not None:
        yield "instances goes with source coco_boxes; remove it, or set source to coco_boxes"
    if take.source == "table" and needs_region(take) and columns.box is None:
        yield (
            f"template {take.template} needs boxes, and no column has them, so that it could never give a row; "
            "set columns.box to the column with the boxes, or to the four columns with their numbers"
        )
    if take.rescale and not take.instances and columns.width is None:
        yield "rescale goes by the size that the boxes were drawn on; set columns.width and columns.height"


def _check_grids(recipe: Recipe, where: str) -> None:
    """A model learns one meaning of a region token: the takes of a split have one grid."""
    grids: dict[str | None, tuple[str, int | None]] = {}
    for name, take in recipe.take.items():
        if not TEMPLATES[take.template].on_grid or take.expected:
            continue
        other, k = grids.setdefault(take.split, (name, take.k))
        if k != take.k:
            raise UsageError(
                f"{where}: the takes {other} (k = {k}) and {name} (k = {take.k}) are in the split {take.split}, "
                f"where a token such as <|x_3|> can mean one place only; give them the same k, or set another split."
            )
