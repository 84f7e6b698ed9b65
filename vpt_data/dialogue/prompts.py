"""Every sentence that a model is shown or taught, and no more."""

from __future__ import annotations

from typing import Final

from vpt_data.dialogue.regions import RegionState as RegionState
from vpt_data.dialogue.regions import inspect_regions as inspect_regions
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


def prompt_tail(template: str, conversation: bool) -> str:
    """What a prompted question ends with, from its first separating character on.

    The blank before the line break is what the published rows keep of Visual-CoT's own prompt; questions that
    come from conversations never had it.

    >>> prompt_tail("reencode", True)
    '\\nRequire additional perception features, and then answer the question.'
    """
    if template == "textbox":
        return f" {BOX_PROMPT}"
    return ("\n" if conversation else " \n") + {"region": REGION_PROMPT, "reencode": ACTION_PROMPT}[template]


def crops_turn(count: int) -> str:
    """The user turn that shows `count` crops.

    >>> crops_turn(2)
    'Region 0: <image>\\nRegion 1: <image>\\n'
    """
    return IMAGE if count == 1 else "".join(f"Region {i}: {IMAGE}\n" for i in range(count))
