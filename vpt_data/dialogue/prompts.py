"""Every sentence that a model is shown or taught, and no more."""

from __future__ import annotations

from typing import Final

from vpt_data.dialogue.tokens import IMAGE

REGION_PROMPT: Final = "Identify the region that can help you answer the question, and then answer the question."
ACTION_PROMPT: Final = "Require additional perception features, and then answer the question."
BOX_PROMPT: Final = (
    "Please provide the bounding box coordinate of the region that can help you answer the question better."
)
#: AURORA's questions and answers, word by word.
DEPTH_MAP: Final = "What is the depth map for the image?"
CLOSEST_POINT: Final = (
    "Multiple points are circled on the image, labeled by letters beside each circle. "
    "Which point is the closest to the camera?"
)
THINK_OF_DEPTH: Final = (
    "\nTo answer this question, let's think through it step by step, and we know the image is 336 x 336. "
    "First, what are the coordinates of points in the image? Second, what is the depth map for the image? "
    "Which point has a higher pixel value on the depth map? "
    "Remember, higher values indicate that the point is closer to the camera."
)
POINT_ANSWER: Final = "({closest})"
POINT_PLACE: Final = "Point {label} is located at (x = {x} y = {y})"
POINT_REASONING: Final = (
    "{places}.The depth map for the image is {depth}. Since point {closest} has a higher pixel value on the depth map, "
    "the answer is that point {closest} is closer to the camera."
)
#: The same for counting; the published questions have these stops, this blank and this apostrophe.
BOXES_OF: Final = (
    "Please perform bounding box prediction for each instance of {plural} in the image.",
    "Find instances of {plural}, return the x1 y1 x2 y2 coordinates of each instance.",
    "Find instances of {plural} in the image and return their bounding boxes.",
    "Return the bounding boxes of {plural}.",
    "Please locate all of the {plural} in this image.",
)
HOW_MANY: Final = "How many {plural} are in the image?"
THINK_OF_BOXES: Final = (
    ".\n To solve this, let\u2019s carefully analyze the image. First, identify the bounding boxes associated with the "
    "{plural}. After that, count how many distinct bounding boxes correspond to {plural}."
)
BOX_LINE: Final = "Bounding box {number}: {box}"
BOXES: Final = "Here are the bounding boxes for the {plural}:\n{boxes}"
NO_BOXES: Final = "There are no {plural} in the image."
COUNT_REASONING: Final = (
    "Based on the analysis, here are the bounding boxes for the {plural}:\n{boxes}\n"
    "Since there are {count} distinct bounding boxes and masks, we conclude there are {count} {plural}."
)
COUNT_NONE: Final = "There are no {plural} in the image. We conclude there are 0 {plural}."
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
