"""The parts of a second look, and the boxes that looks at a region start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from vpt_data.columns import Views
from vpt_data.dialogue.regions import Regions, RegionState, regions_px
from vpt_data.take import Boxes

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule


class Look(NamedTuple):
    """A second look at N records.

    call    string [N], what the model says to get it
    shown   string [N], the user turn that shows it
    view    the views in that turn; their turns are counted from 0 = this user turn
    """

    call: pa.Array
    shown: pa.Array
    view: Views


def selected_regions(annotations: pa.Table, rule: RenderRule, boxes: Boxes) -> Regions:
    """The boxes of records that were selected because they have some."""
    found = regions_px(annotations, boxes, rule.edge)
    assert (found.status == RegionState.OK).all(), f"take {rule.take}: rows without a region were selected"
    return found
