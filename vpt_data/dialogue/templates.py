"""The table of templates: what each needs of a record, what it shows, asks and says of itself.

To add a template is one entry here and one file in `looks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from vpt_data.dialogue import counting, reasoning
from vpt_data.dialogue.looks import reencode, region, textbox
from vpt_data.dialogue.looks.look import Look
from vpt_data.dialogue.prompts import ACTION_PROMPT, BOX_PROMPT, REGION_PROMPT
from vpt_data.dialogue.reasoning import Said

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule
    from vpt_data.take import Take


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A form of dialogue.

    needs_region    a record without a usable box is of no use to it
    needs_image     a record without an image is of no use to it
    needs_encoder   a take of it names an encoder
    look            makes the second look of some records; None: there is none
    says            asks and answers in words of its own, made of what the records hold; None: in those of the records
    records         the source, and its data set, whose records hold what `says` needs; "": any
    explain         what the card says of its dialogues, "" for nothing
    prompt          the sentence that asks for the look, at the end of the question
    separators      what stands before the prompt: behind a question of its own, and behind one of a conversation
    on_grid         its looks name cells of a grid
    first_encoder   the pictures of the question themselves go through the encoder, not through the model's own
    splits          a conversation may become one row for each question (`turns = "each"`)
    whole           a conversation stays whole where a take says nothing (`turns = "all"`)
    captions        the text describes the image and answers no question
    """

    needs_region: bool = False
    needs_image: bool = True
    needs_encoder: bool = False
    look: Callable[[pa.Table, RenderRule], Look] | None = None
    says: Callable[[pa.Table, RenderRule], Said] | None = None
    records: tuple[str, str] = ("", "")
    explain: Callable[[RenderRule], str] | None = None
    prompt: str = ""
    separators: tuple[str, str] = (" \n", "\n")
    on_grid: bool = False
    first_encoder: bool = False
    splits: bool = False
    whole: bool = False
    captions: bool = False

    @property
    def calls_encoder(self) -> bool:
        """Whether its second look is a call of the encoder; without control tokens there is no look then."""
        return self.look is not None and self.needs_encoder

    def tail(self, conversation: bool) -> str:
        """What a prompted question ends with, from its first separating character on.

        >>> TEMPLATES["reencode"].tail(conversation=True)[:30]
        '\\nRequire additional perception '
        """
        return self.separators[conversation] + self.prompt


# The blank before the line break is what the published rows keep of Visual-CoT's own prompt; questions that come
# from conversations never had it.
TEMPLATES: dict[str, Template] = {
    "region": Template(
        needs_region=True, look=region.look, explain=region.explain, prompt=REGION_PROMPT, on_grid=True
    ),
    "reencode": Template(
        needs_encoder=True, look=reencode.look, explain=reencode.explain, prompt=ACTION_PROMPT, splits=True
    ),
    "plain": Template(needs_image=False, splits=True, whole=True),
    "alignment": Template(needs_encoder=True, first_encoder=True, captions=True),
    "textbox": Template(
        needs_region=True, look=textbox.look, explain=textbox.explain, prompt=BOX_PROMPT, separators=(" ", " ")
    ),
    "depth_map": Template(says=reasoning.depth_map, records=("aurora_depth", ""), explain=reasoning.explain),
    "depth_points": Template(
        says=reasoning.closest_point, records=("aurora_depth", "points"), explain=reasoning.explain_points
    ),
    "depth_reasoning": Template(
        says=reasoning.closest_point_by_depth, records=("aurora_depth", "points"), explain=reasoning.explain
    ),
    "count_boxes": Template(says=counting.boxes, records=("aurora_count", ""), explain=counting.explain),
    "count_number": Template(says=counting.number, records=("aurora_count", ""), explain=counting.explain_number),
    "count_reasoning": Template(says=counting.number_by_boxes, records=("aurora_count", ""), explain=counting.explain),
}  # fmt: skip
#: What a row is called whose look was left out on purpose: the control arm of an ablation.
WITHOUT_LOOK = "plain"


def needs_region(take: Take | RenderRule) -> bool:
    """Whether a record without a usable region is of no use to this take; evaluation rows stay."""
    return TEMPLATES[take.template].needs_region and take.expected is None


def needs_image(take: Take | RenderRule) -> bool:
    """Whether a record without an image is of no use to this take."""
    return TEMPLATES[take.template].needs_image or take.expected is not None
