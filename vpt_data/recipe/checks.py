"""What the types of a recipe cannot say; each message names the take and the key."""

from __future__ import annotations

import re

from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import UsageError
from vpt_data.recipe.record import Recipe
from vpt_data.take import Take

#: The least and the most that these rules may be; no grid is that fine, and beyond 32 bits nothing can be stored.
_BOUNDS = {"k": (1, 1000), "crop_margin_cells": (0, 1000), "control_tokens": (0, 1000)}
_NAME = re.compile(r"[A-Za-z0-9_]+")


def check(recipe: Recipe, name: str) -> None:
    """What types cannot say; each message names the take and the key."""
    for key, take in recipe.take.items():
        where = f"Recipe {name}, take {key}"
        if not _NAME.fullmatch(key):
            raise UsageError(f"{where}: a take's name may hold letters, digits and _ only.")
        if isinstance(take.count, int) and take.count < 0:
            raise UsageError(f'{where}: count is {take.count}; expected 0 or more, or "all".')
        if take.share is not None and not 0 < take.share <= 1:
            raise UsageError(f"{where}: share is {take.share}; expected more than 0 and at most 1.")
        template = TEMPLATES[take.template]
        if template.needs_encoder and not (take.encoder or recipe.encoder):
            known = ", ".join(ENCODERS)
            raise UsageError(f"{where}: template {take.template} needs an encoder; set encoder to one of {known}.")
        if take.rescale and take.files and not take.instances and take.columns.width is None:
            raise UsageError(
                f"{where}: rescale goes by the size that the boxes were drawn on; set columns.width and columns.height."
            )
        if take.turns == "each" and not template.splits:
            can = " and ".join(name for name, entry in TEMPLATES.items() if entry.splits)
            raise UsageError(f"{where}: turns = each goes with the templates {can} only.")
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
