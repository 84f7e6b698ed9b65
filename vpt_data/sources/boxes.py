"""Boxes of own data: from the numbers of a file to pixels of the stored image, and a guard against a wrong convention.

A reader gives the corners as they are in the file, with the *frame* they count in: the width and height that the far
corner of the image has in these numbers (1 and 1 for fractions, 1000 and 1000 for permille, the size of a resized
copy), or none for pixels of the stored image. Sizes that are not in the file are known only after the reader is done.

A box *misfits* where its far corner comes before its near one, or where it reaches beyond the image by more than
2 % of its side. Read rightly, at most 0.9 % of the boxes of nine real sources misfit; read in another convention, 17 %
or more do. The limits below are between the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry
from vpt_data.columns import Bools, column, of_images, quads, relist, sizes, structs, unlist
from vpt_data.errors import UsageError
from vpt_data.schema import ANNOTATION
from vpt_data.take import BoxFormat, Take

_FORMATS: Final[dict[BoxFormat, str]] = {
    "xyxy": "two corners (x0, y0, x1, y1)",
    "xywh": "a corner and a size (x, y, width, height)",
    "cxcywh": "a centre and a size (x, y, width, height)",
    "yxyx": "two corners with y first (y0, x0, y1, x1)",
}
#: How far an image reaches in units that do not count its own pixels.
_REACH: Final = {"fraction": 1.0, "permille": 1000.0}
_SLACK, _SLACK_PX = 0.02, 2.0
_FEW, _WRONG, _RIGHT = 3, 0.10, 0.02
_TURNED, _SUSPECTS, _FILLED = 0.01, 20, 0.8
#: Boxes of another unit could all be as they are by chance with a probability of one in e to the power of this. Only
#: sides count that are this much longer than that unit reaches: on many pages nothing is near the border.
_CERTAIN, _CLEARLY = 20.0, 1.1


class Reading(NamedTuple):
    """One way to read four numbers; unit "frame" is that of `box_frame`."""

    form: BoxFormat
    unit: str


class Problem(NamedTuple):
    """What the boxes look like, how a recipe is corrected, and how a COCO-format file is, which has one convention."""

    what: str
    recipe: str
    coco: str = "write x, y, width and height in pixels into the file"


def in_pixels(annotations: pa.Table, frame: npt.NDArray[np.float64]) -> pa.Table:
    """Annotations with their boxes in pixels of the stored image.

    frame   float64 [N, 2], width and height that the boxes of each row count in, NaN for pixels

    Boxes whose image has no known size stay as they are; they have no pixels.
    """
    regions = unlist(column(annotations, "regions"))
    listed = unlist(column(annotations, "images"))
    box, given = quads(regions.values, "box", np.nan)
    at, there = of_images(regions, listed)
    reach = frame[regions.rows]
    known = given & there & np.isfinite(reach).all(axis=1)
    known[known] = (sizes(listed)[at[known]] >= 1).all(axis=1)
    # Divide last: 500 permille of 640 is then exactly 320, where 500 * 0.64 need not be.
    box[known] = geometry.scale(box[known], sizes(listed)[at[known]]) / np.tile(reach[known], 2)
    kind = ANNOTATION.field("regions").type
    fields = {field.name: pc.struct_field(regions.values, field.name) for field in kind.value_type}
    numbers = pa.array(box.ravel())
    fields["box"] = pa.FixedSizeListArray.from_arrays(numbers, type=fields["box"].type, mask=pa.array(~given))
    moved = relist(regions.lengths, structs(kind.value_type, list(fields.values())), kind)
    return annotations.set_column(annotations.schema.get_field_index("regions"), ANNOTATION.field("regions"), moved)


class BoxGuard:
    """Counts how the boxes of a file fit their images as the take reads them, and as they could be meant instead."""

    def __init__(self, file: str, take: Take) -> None:
        """The boxes of a file, as the take reads them; those of a take with `instances` are in COCO's format."""
        self._file, self._take = file, take
        self._as = Reading(take.box_format, "frame" if take.box_frame else take.box_units)
        if take.instances is not None:
            self._as = Reading("xywh", "pixel")
        units = ["frame"] if take.box_frame else ["pixel", *_REACH]
        self._misfits = Counter({Reading(form, unit): 0 for form in _FORMATS for unit in units})
        self._used = {reading: np.zeros(2) for reading in self._misfits}
        self._boxes, self._largest = 0, 0.0
        self._beyond, self._surprise = Counter[str](), {"pixel": 0.0, "permille": 0.0}
        self._suspects: dict[str, None] = {}

    def add(self, annotations: pa.Table, frame: npt.NDArray[np.float64]) -> None:
        """Look at the boxes of some rows, which are still as the take's format and units have made them."""
        regions = unlist(column(annotations, "regions"))
        listed = unlist(column(annotations, "images"))
        box, given = quads(regions.values, "box", np.nan)
        at, there = of_images(regions, listed)
        # Four zeros, or no number at all, stand for no box.
        real = given & there & np.isfinite(box).all(axis=1) & (box != 0).any(axis=1)
        if not real.any():
            return
        # Ten questions about one box say no more of the convention than one.
        real = np.flatnonzero(real)
        image = pc.struct_field(listed.values, "path").dictionary_encode().indices.to_numpy()[at[real]]
        once = np.unique(np.column_stack([image, box[real]]), axis=0, return_index=True)[1]
        real = real[np.sort(once)]
        corners, at = box[real], at[real]
        side = sizes(listed)[at].astype(np.float64)
        side[(side < 1).any(axis=1)] = np.nan
        numbers = geometry.from_corners(corners, self._as.form)
        self._boxes += len(numbers)
        self._largest = max(self._largest, float(np.abs(numbers).max()))
        limits = {"frame": frame[regions.rows[real]], "pixel": side}
        for reading in self._misfits:
            limit = limits[reading.unit] if reading.unit in limits else np.full_like(side, _REACH[reading.unit])
            meant = geometry.corners(numbers, reading.form)
            misfit = _misfits(meant, limit)
            self._misfits[reading] += int(misfit.sum())
            used = np.nan_to_num(meant[~misfit, 2:] / limit[~misfit])
            self._used[reading] = np.maximum(self._used[reading], used.max(axis=0, initial=0.0))
            if reading == self._as and len(self._suspects) < _SUSPECTS:
                paths = pc.struct_field(listed.values, "path").take(pa.array(at[misfit]))
                self._suspects.update(dict.fromkeys(paths.to_pylist()[:_SUSPECTS]))
        self._weigh(corners[:, 2:], side)

    def _weigh(self, far: npt.NDArray[np.float64], side: npt.NDArray[np.float64]) -> None:
        """Pixels and permille can both fit: what is unlikely is that no far corner uses the room it has."""
        known = np.isfinite(side)
        thousand = np.full_like(side, 1000.0)
        for unit, reach, room in (("permille", thousand, side), ("pixel", side, thousand)):
            smaller = known & (reach * _CLEARLY < room)
            self._beyond[unit] += int((far[known] > reach[known] * (1 + _SLACK)).sum())
            self._surprise[unit] += float(np.log(room[smaller] / reach[smaller]).sum())

    def check(self, turned: Callable[[str], bool]) -> None:
        """Raise a UsageError where the boxes look like another convention than the take's.

        turned   whether viewers show the image of a path turned by a quarter, as its EXIF orientation says
        """
        if not self._take.check_boxes or not (problem := self._problem(turned)):
            return
        corrected = f"{problem.recipe} in the take, or check_boxes = false"
        if self._take.instances is not None:
            corrected = f"{problem.coco}, or set check_boxes = false in the take"
        raise UsageError(f"{self._file}: {problem.what}; {corrected} if the boxes are right as they are.")

    def _problem(self, turned: Callable[[str], bool]) -> Problem | None:
        wrong = self._misfits[self._as]
        if self._boxes > 1 and self._largest <= 1 and self._as.unit != "fraction":
            what = "the copy's" if self._as.unit == "frame" else self._as.unit
            remove = "box_frame away and " if self._as.unit == "frame" else ""
            return Problem(
                f"every box number is between 0 and 1, which is next to nothing in {what} units",
                f'set {remove}box_units = "fraction"',
            )
        counted = f"{wrong:,} of {self._boxes:,} boxes do not fit their images as {_FORMATS[self._as.form]}"
        if wrong >= _FEW and wrong >= _TURNED * self._boxes and self._quarter_turned(turned):
            return Problem(
                f"{wrong:,} of {self._boxes:,} boxes do not fit the stored images, which an EXIF orientation turns "
                "when they are shown: the boxes look as if they were drawn on the images as shown",
                "save the images upright, or set columns.width and columns.height to columns with the sizes as shown",
                "save the images upright, or write their sizes as shown into the file",
            )
        if wrong >= _FEW and wrong >= _WRONG * self._boxes and (better := self._better()):
            look, keys = better
            return Problem(f"{counted} in {self._units(self._as.unit)}; they look like {look}", f"set {keys}")
        other = {"pixel": "permille", "permille": "pixel"}.get(self._as.unit)
        if (
            other
            and not self._beyond[other]
            and self._surprise[other] >= _CERTAIN
            and self._reaches(other, self._as.form)
        ):
            return Problem(
                f"the take reads the boxes in {self._units(self._as.unit)}, and none of {self._boxes:,} reaches beyond "
                f"what {self._units(other)} would allow",
                f'set box_units = "{other}"',
            )
        return None

    def _reaches(self, unit: str, form: BoxFormat) -> bool:
        """Whether some box comes near the right and the lower border: in too large a unit, none does."""
        return bool((self._used[Reading(form, unit)] >= _FILLED).all())

    def _quarter_turned(self, turned: Callable[[str], bool]) -> bool:
        found = [turned(path) for path in self._suspects]
        return sum(found) >= 0.8 * len(found)

    def _better(self) -> tuple[str, str] | None:
        """The readings that fit with the fewest keys changed: what they are, and which keys to set."""
        limit = min(_RIGHT * self._boxes, self._misfits[self._as] / 5)
        fits = {
            other: self._changes(other)
            for other, count in self._misfits.items()
            if count <= limit and (other.unit == self._as.unit or self._reaches(other.unit, other.form))
        }
        if not fits:
            return None
        fewest = min(len(keys) for keys in fits.values())
        near = min(self._misfits[other] for other, keys in fits.items() if len(keys) == fewest) + self._boxes / 100
        best = [other for other, keys in fits.items() if len(keys) == fewest and self._misfits[other] <= near]
        what = " or ".join(f"{_FORMATS[other.form]} in {self._units(other.unit)}" for other in best)
        return what, " or ".join(" and ".join(fits[other]) for other in best)

    def _changes(self, other: Reading) -> list[str]:
        changes = [f'box_format = "{other.form}"'] * (other.form != self._as.form)
        return changes + [f'box_units = "{other.unit}"'] * (other.unit != self._as.unit)

    def _units(self, unit: str) -> str:
        names = {"pixel": "pixels", "fraction": "fractions of the image", "permille": "thousandths of the image"}
        return names.get(unit, "pixels of a resized copy")


def _misfits(corners: npt.NDArray[np.float64], limit: npt.NDArray[np.float64]) -> Bools:
    """Boxes [M, 4] whose corners are in the wrong order or that are not on an image that reaches to `limit` [M, 2]."""
    near, far = corners[:, :2], corners[:, 2:]
    slack = np.where(np.isnan(limit), _SLACK_PX, _SLACK * limit)
    beyond = (near < -slack) | (far > limit + slack)  # a limit that is not known is NaN, and nothing is beyond that
    misplaced = (near > far) | beyond
    return misplaced[:, 0] | misplaced[:, 1]
