"""A recipe: rules for all takes, then the takes in the order in which they claim records."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.take import Boxes, Edge, Take, key

#: The split of rows whose image is held out (key `holdout`).
HOLDOUT = "holdout"


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A whole corpus. Once it is resolved, every take has its own value of each rule in INHERITED."""

    name: Annotated[str, key("my_mix", "The name of the corpus; the name of the file where it is left out.")] = ""
    extends: Annotated[
        str | None,
        key("mixvrt_dino", "A recipe, by name or path, that this one starts from; takes are merged by name."),
    ] = None
    description: Annotated[str, key("Receipts and signs.", "One sentence for the card.")] = ""
    notes: Annotated[list[str], key(["Faces are blurred."], "Statements for the card.")] = []
    encoder: Annotated[
        str | None,
        key("dino", "The encoder that re-encoding looks call; templates that use an encoder need one."),
    ] = None
    seed: Annotated[int, key(1, "The seed of selection and order.")] = 0
    split: Annotated[str, key("validation", "The split of all takes that name none.")] = "train"
    shards: Annotated[
        int | None, key(8, "How many shards each split gets; follows from the expected counts where it is left out.")
    ] = None
    exclude: Annotated[
        str | list[str] | None,
        key(
            ["vpt_eval", "my_test.toml"],
            "An evaluation recipe or several, by name or path: rows that show an image of them are dropped.",
        ),
    ] = None
    holdout: Annotated[
        float | None,
        key(
            0.02,
            "The share of images, by the hash of their identity, whose rows go to the split `holdout`; more than 0 and "
            "less than 1. Takes with `expected` keep their split.",
        ),
    ] = None
    k: Annotated[int, key(16, "Cells on each side of the grid, 1 to 1000.")] = 8
    edge: Annotated[
        Edge,
        key(
            "inside",
            "The cell of a box's far corner: `floor` (the last cell at most), `inside` (the cell before a grid line) "
            "or `legacy` (the defect of the published data, for comparison).",
        ),
    ] = "floor"
    boxes: Annotated[Boxes, key("each", "Several boxes of a record: one look at their union, or one look at each.")] = (
        "union"
    )
    crop_margin_cells: Annotated[
        int, key(1, "How many cells a crop shows beyond its rectangle on every side, 0 to 1000.")
    ] = 0
    control_tokens: Annotated[
        int, key(2, "How often the middle token of a re-encoding look is repeated, 0 to 1000; 0 renders no look.")
    ] = 1
    prompted: Annotated[bool, key(False, "Whether questions end with the sentence that asks for a look.")] = True
    tolerance: Annotated[
        float, key(0.05, "The share of records dropped for damage that `--strict` accepts, 0 to 1.")
    ] = 0.01
    take: Annotated[
        dict[str, Take], key({}, "The takes, one table [take.NAME] each, in the order in which they claim records.")
    ] = {}

    @property
    def excludes(self) -> list[str]:
        """The evaluation recipes that are excluded."""
        return [self.exclude] if isinstance(self.exclude, str) and self.exclude else list(self.exclude or [])

    def digest(self) -> str:
        """The sha256 of everything the recipe says, in one canonical form."""
        return hashlib.sha256(msgspec.json.encode(self.recorded(), order="sorted")).hexdigest()

    def recorded(self) -> Recipe:
        """The recipe as a corpus records it: of the excluded ones only the file names, not their place on this machine.

        A corpus has the sha256 of those as well.
        """
        names = [each.rpartition("/")[2] for each in self.excludes]
        return msgspec.structs.replace(
            self, exclude=names if isinstance(self.exclude, list) else next(iter(names), None)
        )


#: Rules a take inherits from its recipe where it says nothing itself.
INHERITED = ("split", "encoder", "prompted", "k", "edge", "boxes", "crop_margin_cells", "control_tokens")


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with every inherited rule written into every take, so that nothing downstream looks twice."""
    takes = {name: _inherit(take, recipe) for name, take in recipe.take.items()}
    return msgspec.structs.replace(recipe, take=takes)


def _inherit(take: Take, recipe: Recipe) -> Take:
    values = {key: getattr(recipe, key) for key in INHERITED if getattr(take, key) is None}
    turns = take.turns or ("all" if TEMPLATES[take.template].whole and not take.expected else "first")
    return msgspec.structs.replace(take, turns=turns, **values)
