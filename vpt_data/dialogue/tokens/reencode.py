"""Re-encoding tokens: three tokens that call a second vision encoder, and the placeholder that answers them.

An assistant turn that asks for encoder E is `start control..control end`. The control tokens (one in the
published data, n as an ablation) carry the condition for the encoder's projector and are never trained on;
start and end are. To add an encoder to the corpora is one entry of `ENCODERS`; for training with it, the bundled
trainer needs one of its own.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from vpt_data.dialogue.tokens.family import Family, Token


@dataclass(frozen=True)
class Encoder:
    """One extra vision encoder: our name for it and the words that the published format uses.

    `stem` is the word in its tokens, `placeholder` what stands in a user turn for its features,
    `images_column` the list of the published JSON that holds its images, `image_tokens` how many tokens any image
    takes through it (None: as many as through the model's own tower).
    """

    name: str
    stem: str
    placeholder: str
    images_column: str
    image_tokens: int | None = None

    @property
    def start(self) -> str:
        """Token that opens a call."""
        return f"<|{self.stem}_action_start|>"

    @property
    def control(self) -> str:
        """Token whose hidden state steers the encoder; carries no loss."""
        return f"<|{self.stem}_action|>"

    @property
    def end(self) -> str:
        """Token that closes a call."""
        return f"<|{self.stem}_action_end|>"

    @property
    def image_pad(self) -> str:
        """Special token that is repeated once per feature vector of the re-encoded image."""
        return f"<|{self.stem}_image_pad|>"


ENCODERS: Final[dict[str, Encoder]] = {
    "dino": Encoder("dino", "detection", "<detection_image>", "detection_images", 256),
    "sam": Encoder("sam", "seg", "<seg_image>", "seg_images", 256),
    "clip": Encoder("clip", "clip", "<clip_image>", "clip_images"),
}


def family(entry: Encoder) -> Family:
    """The tokens of an encoder; a call has no choice in it, so that whoever generates plays all of it at its start."""
    calls = [Token(content, "action") for content in (entry.start, entry.control, entry.end)]
    pattern = rf"<\|{re.escape(entry.stem)}_(action(_start|_end|)|image_pad)\|>"

    def faults(text: str, _: int) -> Counter[str]:
        found = (call.fault for call in decode_action(text) if call.encoder == entry.name)
        return Counter(f"action_{fault}" for fault in found if fault)

    tokens = [Token(entry.image_pad, special=True), *calls]
    return Family(lambda _: tokens, pattern, entry.start, lambda span, k: None, faults, look=True)


def token_pattern() -> str:
    """A token of a call of any encoder, for RE2 and `re` alike; groups `stem` and `role`."""
    stems = "|".join(re.escape(entry.stem) for entry in ENCODERS.values())
    return rf"<\|(?P<stem>{stems})_action(?P<role>_start|_end|)\|>"


def _entry(stem: str) -> Encoder:
    return next(entry for entry in ENCODERS.values() if entry.stem == stem)


class ActionFault(StrEnum):
    """What is wrong with one call; one with `space_between_tokens` counts all the same."""

    MISSING_START = "missing_start"
    MISSING_END = "missing_end"
    MISSING_CONTROL = "missing_control"
    MIXED_ENCODERS = "mixed_encoders"
    TEXT_BETWEEN_TOKENS = "text_between_tokens"
    SPACE_BETWEEN_TOKENS = "space_between_tokens"


class Action(NamedTuple):
    """One call found in a text: the encoder of its first token, its number of control tokens, its fault."""

    encoder: str
    control_tokens: int
    fault: ActionFault | None


def encoder_named(name: str) -> Encoder:
    """The entry of `ENCODERS`; ValueError with the names that exist otherwise."""
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r} is not known, expected one of: {', '.join(ENCODERS)}")
    return ENCODERS[name]


def action_turn(encoder: str, n: int = 1) -> str:
    """The assistant turn that calls `encoder` with n control tokens.

    >>> action_turn("dino")
    '<|detection_action_start|><|detection_action|><|detection_action_end|>'
    """
    if n < 1:
        raise ValueError(f"control tokens: {n} asked for, expected at least 1")
    entry = encoder_named(encoder)
    return entry.start + entry.control * n + entry.end


def decode_action(text: str) -> list[Action]:
    """Find every call in one assistant text, in order; empty if there is none.

    At most one fault a call, the first of: missing start, missing end, mixed encoders, missing control,
    text between tokens, space between tokens.

    >>> decode_action("<|seg_action_start|><|seg_action|><|seg_action|><|seg_action_end|>")
    [Action(encoder='sam', control_tokens=2, fault=None)]
    """
    return [_judge(text, tokens) for tokens in _calls(text)]


def _calls(text: str) -> Iterator[list[re.Match[str]]]:
    """Groups of tokens: a start opens a group, an end closes it, whatever is missing."""
    group: list[re.Match[str]] = []
    for token in re.finditer(token_pattern(), text):
        if token["role"] == "_start" and group:
            yield group
            group = []
        group.append(token)
        if token["role"] == "_end":
            yield group
            group = []
    if group:
        yield group


def _judge(text: str, tokens: list[re.Match[str]]) -> Action:
    encoder = _entry(tokens[0]["stem"])
    control = sum(token.group() == encoder.control for token in tokens)
    return Action(encoder.name, control, _fault(text, tokens, control))


def _fault(text: str, tokens: list[re.Match[str]], control: int) -> ActionFault | None:
    if tokens[0]["role"] != "_start":
        return ActionFault.MISSING_START
    if tokens[-1]["role"] != "_end":
        return ActionFault.MISSING_END
    if len({token["stem"] for token in tokens}) > 1:
        return ActionFault.MIXED_ENCODERS
    if not control:
        return ActionFault.MISSING_CONTROL
    between = re.sub(token_pattern(), "", text[tokens[0].start() : tokens[-1].end()])
    if between.strip():
        return ActionFault.TEXT_BETWEEN_TOKENS
    return ActionFault.SPACE_BETWEEN_TOKENS if between else None
