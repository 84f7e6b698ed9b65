"""Every sentence that a model is shown or taught, and no more."""

from __future__ import annotations

from typing import Final

from vpt_data.dialogue.tokens import IMAGE

REGION_PROMPT: Final = "Identify the region that can help you answer the question, and then answer the question."
ACTION_PROMPT: Final = "Require additional perception features, and then answer the question."
BOX_PROMPT: Final = (
    "Please provide the bounding box coordinate of the region that can help you answer the question better."
)
#: How LLaVA asks for short answers: after the first question only, and meant for the whole conversation.
FORMAT_SUFFIXES: Final = (
    "\nAnswer the question using a single word or phrase.",
    "\nAnswer with the option's letter from the given choices directly.",
)


def crops_turn(count: int) -> str:
    """The user turn that shows `count` crops.

    >>> crops_turn(2)
    'Region 0: <image>\\nRegion 1: <image>\\n'
    """
    return IMAGE if count == 1 else "".join(f"Region {i}: {IMAGE}\n" for i in range(count))
