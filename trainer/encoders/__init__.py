"""The extra vision encoders that a model can be trained with: one file and one line of the table each.

kind       what the trainer has to know of an encoder
projector  its features into the width of the language model, steered by a control vector
dino, sam  two frozen encoders with towers of their own
clip       the model's own vision tower once more

What their tokens are called stands in `vpt_data.dialogue.tokens.reencode`. The name of a tower's weights is a key of
`trainer.config.Model`, and the sizes for random weights stand in `trainer.model.shapes` and `tiny`.
"""

from collections.abc import Iterable

from trainer.encoders import clip, dino, sam
from trainer.encoders.kind import Kind, Tower

KINDS: dict[str, Kind] = {"dino": dino.KIND, "sam": sam.KIND, "clip": clip.KIND}


def towers_of(kinds: Iterable[str]) -> dict[str, type[Tower]]:
    """The classes of those towers that encoders have of their own."""
    return {kind: tower for kind in kinds if (tower := KINDS[kind].tower) is not None}
