"""Generation: the model looks again where it wants to, and then answers.

A batch runs in rounds, in one session: every row speaks its turn to the end, then the rows that asked for regions or
for another encoder are shown them in a user turn, as in training, and the others leave. Nothing is encoded twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import click
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from trainer import setup
from trainer.encode import RowEncoder, Unfit
from trainer.model import VPTModel
from trainer.run import check_packages, configuration
from trainer.sample import Control, Encoded
from trainer.session import Session, block
from vpt_data import geometry, pictures, views
from vpt_data.commands import fail, json_option
from vpt_data.errors import OutputError, RawError, UsageError, VptDataError
from vpt_data.templates import crops_turn
from vpt_data.tokens import IMAGE, PLACEHOLDERS, grid
from vpt_data.tokens.reencode import ENCODERS, decode_action

REGION: Final = "region"  # the kind of look that is no encoder
OUT_OF_TOKENS: Final = "out_of_tokens"
OVER_THE_CAP: Final = "over_the_cap"


@dataclass(frozen=True)
class Prompt:
    """An RGB or other image and a question about it; `turns` are questions and answers before it.

    The image comes in the first question, where `<image>` stands in it, else in front of it. A model that was trained
    with prompts such as `templates.REGION_PROMPT` wants them at the end of the question.
    """

    image: Image.Image
    question: str
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Decoding:
    """How to generate.

    max_new_tokens  of a row, over all its turns
    max_actions     turns of a row that may ask for a look; then the tokens that open one are not to be had
    force           what the first turn begins with: `region` or an encoder of the model; None: free choice
    expand          cells by which crops grow on every side; the published evaluation uses 1, training 0
    on_invalid      after a turn whose looks are all invalid a row ends (`stop`), or answers without (`continue`)
    control_tokens  of a call, as in the corpus
    temperature     0: the most likely token; else tokens are drawn, with `seed`
    """

    max_new_tokens: int = 256
    max_actions: int = 2
    force: str | None = None
    expand: int = 0
    on_invalid: Literal["stop", "continue"] = "stop"
    control_tokens: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.max_actions < 0 or self.expand < 0 or self.control_tokens < 1:
            raise UsageError(
                f"max_new_tokens, max_actions, expand and control_tokens are {self.max_new_tokens}, "
                f"{self.max_actions}, {self.expand} and {self.control_tokens}, expected at least 1, 0, 0 and 1"
            )
        if self.force is not None and self.max_actions == 0:
            raise UsageError(f"force is {self.force!r} and max_actions is 0, expected at least 1 to force an action")


class Shown(NamedTuple):
    """A second look: `region` with cells and box of its crop (pixels of the image, half open), or an encoder."""

    kind: str
    cells: tuple[int, int, int, int] | None = None
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a prompt.

    text     the last turn; `turns` has all of them, with their perception tokens
    looks    what was shown after the prompt, in order
    invalid  `region_` or `action_` and a fault of `RegionFault` or `ActionFault`, `out_of_tokens` (the text is cut),
             `over_the_cap` (how often a look was wanted beyond `max_actions`) -> how often
    tokens   all ids of its turns, forced ones included, without their end
    """

    text: str
    turns: tuple[str, ...]
    looks: tuple[Shown, ...]
    invalid: Counter[str]
    tokens: tuple[int, ...]


def generate(
    model: VPTModel, encoder: RowEncoder, prompts: Sequence[Prompt], decoding: Decoding | None = None
) -> list[Answer]:
    """Answers to a batch of prompts, in their order; each is what it would be alone, up to rounding.

    Raises UsageError for a prompt that does not fit the tokenizer and for a force that the model does not know.
    """
    if not prompts:
        return []
    training = model.training
    model.eval()
    try:
        return _Rounds(model, encoder, prompts, decoding or Decoding()).run()
    finally:
        model.train(training)


@dataclass
class _Row:
    prompt: Prompt
    name: str
    turn: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    closed: bool = False  # the turn
    turns: list[str] = field(default_factory=list)
    looks: list[Shown] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)
    actions: int = 0

    def answer(self) -> Answer:
        return Answer(self.turns[-1], tuple(self.turns), tuple(self.looks), self.invalid, tuple(self.tokens))


class _Rounds:
    """A batch under generation; `live` are the rows of the session."""

    def __init__(self, model: VPTModel, encoder: RowEncoder, prompts: Sequence[Prompt], how: Decoding) -> None:
        self.encoder, self.how, self.device = encoder, how, model.device
        self.ends = {encoder.token_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
        self.calls = {encoder.token_id(ENCODERS[kind].start): kind for kind in model.projectors}
        self.starts = {REGION: encoder.token_id(grid.START)} | {kind: at for at, kind in self.calls.items()}
        if how.force is not None and how.force not in self.starts:
            raise UsageError(f"force is {how.force!r}, expected one of: {', '.join(self.starts)}")
        self.random = torch.Generator(model.device).manual_seed(how.seed)
        self.rows = [_Row(prompt, f"prompt {number}") for number, prompt in enumerate(prompts)]
        self.live = list(self.rows)
        self.session = Session(model, [self._asked(row) for row in self.rows])

    def run(self) -> list[Answer]:
        if self.how.force is not None:
            self.session.extend([self._spoken(row, self.starts[self.how.force]) for row in self.live])
        while self.live:
            while not all(row.closed for row in self.live):
                tokens = self._choose()
                pairs = zip(self.live, tokens, strict=True)
                self.session.extend([None if row.closed else self._spoken(row, token) for row, token in pairs])
            self._next_round()
        return [row.answer() for row in self.rows]

    @torch.no_grad()
    def _choose(self) -> list[int]:
        """A token for each row; none that opens a look where there have been enough."""
        logits = self.session.logits().float()
        chosen = self._pick(logits)
        opening = set(self.starts.values())
        full = [not row.closed and row.actions >= self.how.max_actions for row in self.live]
        refused = [place for place, token in enumerate(chosen) if full[place] and token in opening]
        if refused:
            logits[:, list(opening)] = -torch.inf
            for place, token in zip(refused, self._pick(logits[refused]), strict=True):
                self.live[place].invalid[OVER_THE_CAP] += 1
                chosen[place] = token
        return chosen

    def _pick(self, logits: Tensor) -> list[int]:
        if self.how.temperature > 0:
            shares = torch.softmax(logits / self.how.temperature, dim=-1)
            logits = torch.zeros_like(shares).scatter_(1, torch.multinomial(shares, 1, generator=self.random), 1.0)
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen

    def _spoken(self, row: _Row, token: int) -> Encoded | None:
        """What a token appends to its row: nothing if it ends the turn, all of a call if it opens one."""
        if token in self.ends:
            row.closed = True
            return None
        said, controls = [token], 0
        if token in self.calls:
            call, controls = ENCODERS[self.calls[token]], self.how.control_tokens
            said += [self.encoder.token_id(word) for word in [call.control] * controls + [call.end]]
            row.calls.append(call.name)
        row.turn += said
        row.tokens += said
        if len(row.tokens) >= self.how.max_new_tokens:
            row.closed = True
            row.invalid[OUT_OF_TOKENS] += 1
            return None
        return block(torch.tensor(said), (), [Control(self.calls[token], at + 1) for at in range(controls)])

    def _next_round(self) -> None:
        """Show the rows what they asked for; those that did not are done."""
        shown = [self._reply(row) for row in self.live]
        going = [place for place, one in enumerate(shown) if one is not None]
        self.live = [self.live[place] for place in going]
        if going:
            self.session.keep(going)
            self.session.extend([shown[place] for place in going])

    def _reply(self, row: _Row) -> Encoded | None:
        """The end of the turn that a row has spoken and what comes after it, up to the header of its next turn."""
        text = self.encoder.tokenizer.decode(row.turn, skip_special_tokens=False)
        regions = grid.decode(text, self.encoder.k)
        faults = Counter({f"region_{fault}": times for fault, times in regions.faults.items()})
        faults.update(f"action_{call.fault}" for call in decode_action(text) if call.fault)
        looks = [Shown(REGION, cells, self._box(row, cells)) for cells in regions.cells]
        looks += [Shown(kind) for kind in row.calls]
        row.turns.append(text)
        row.invalid += faults
        row.turn, row.calls, row.closed = [], [], False
        again = bool(looks) or (bool(faults) and self.how.on_invalid == "continue")
        if not again or row.actions >= self.how.max_actions or row.invalid[OUT_OF_TOKENS]:
            return None
        row.actions += 1
        row.looks += looks
        return self._shown(row, looks)

    def _box(self, row: _Row, cells: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = geometry.crop([cells], [row.prompt.image.size], self.encoder.k, self.how.expand)[0].tolist()
        return x0, y0, x1, y1

    def _asked(self, row: _Row) -> Encoded:
        turns = [text for pair in row.prompt.turns for text in pair] + [row.prompt.question]
        if IMAGE not in turns[0]:
            turns[0] = f"{IMAGE}\n{turns[0]}"
        return self._encoded(row, turns, [Shown("vlm")])

    def _shown(self, row: _Row, looks: Sequence[Shown]) -> Encoded:
        crops = sum(look.kind == REGION for look in looks)
        text = (crops_turn(crops) if crops else "") + "".join(PLACEHOLDERS[look.kind] for look in looks[crops:])
        # Between no question and no answer to it, so that only the end of an answer and what follows is new.
        return self._encoded(row, ["", "", text] if looks else ["", ""], looks, said=2)

    def _encoded(self, row: _Row, turns: Sequence[str], looks: Sequence[Shown], said: int = 0) -> Encoded:
        """Turns as in training and the next header; without the first `said`, but for the end of their last."""
        image, vision = row.prompt.image, self.encoder.vision
        kinds = ["vlm" if look.kind == REGION else look.kind for look in looks]
        fields = {
            "id": row.name,
            "messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)],
            "views": [
                {"image": 0, "encoder": kind, "turn": said, "box": look.box, "cells": None}
                for kind, look in zip(kinds, looks, strict=True)
            ],
            "image_info": [{"width": image.width, "height": image.height}],
        }
        try:
            draft = self.encoder.draft(fields, prompt=True)
        except Unfit as unfit:
            raise UsageError(f"{row.name}: {unfit.detail}; ask in other words, or raise the cutoff") from unfit
        cut = int(draft.trained.nonzero()[0][-1]) if said else 0
        shown = [
            vision.pixels(kind, vision.picture(kind, views.pixels(image, look.box)).to(self.device))
            for kind, look in zip(kinds, looks, strict=True)
        ]
        whole = draft.with_pixels(shown)
        slots = [replace(slot, start=slot.start - cut) for slot in whole.slots]
        return block(whole.input_ids[cut:], slots, [] if said else whole.controls, id=row.name)


def drawn(image: Image.Image, answer: Answer) -> Image.Image:
    """A copy of the image with the boxes that the model looked at."""
    copy = views.pixels(image)
    pen = ImageDraw.Draw(copy)
    for look in answer.looks:
        if look.box is not None:
            x0, y0, x1, y1 = look.box
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=(255, 0, 64), width=max(2, max(copy.size) // 200))
    return copy


def said(answer: Answer) -> dict[str, Any]:
    """An answer for JSON; of the tokens their number."""
    looks = [look._asdict() for look in answer.looks]
    told = {"text": answer.text, "turns": answer.turns, "looks": looks, "invalid": answer.invalid}
    return {**told, "tokens": len(answer.tokens)}


def _opened(path: Path) -> Image.Image:
    try:
        return pictures.decoded(path.read_bytes())
    except pictures.UNDECODABLE as error:
        raise RawError(
            f"{path}: not an image that can be read ({error}); give a PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from error


def _save(image: Image.Image, path: Path) -> None:
    try:
        image.save(path)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: the image cannot be written ({error}); give a .png in a folder that exists"
        ) from error


def loaded(run: Path, device: str) -> tuple[VPTModel, RowEncoder]:
    """Model and row encoder of a run, or of one of its checkpoints, in float32."""
    checkpoint = run if run.name.startswith("step-") else None
    folder = run.parent if checkpoint else run
    config = configuration(None, None, None, (), folder)
    model, tokenizer = setup.load_run(folder, config, checkpoint)
    return model.to(device), setup.row_encoder(config, tokenizer)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="Folder that a run wrote.")
@click.option("--image", type=click.Path(path_type=Path), required=True)
@click.option("--question", required=True)
@click.option("--max-new-tokens", default=256, show_default=True, help="Over all turns.")
@click.option("--max-actions", default=2, show_default=True, help="Turns that may ask for a second look.")
@click.option("--force", help="First action: region, dino, sam or clip; the model chooses without it.")
@click.option("--expand", default=0, show_default=True, help="Cells by which a crop grows on every side.")
@click.option("--on-invalid", type=click.Choice(["stop", "continue"]), default="stop", show_default=True)
@click.option("--temperature", default=0.0, show_default=True, help="0: the most likely token.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--save", type=click.Path(path_type=Path), help="Write the image with the regions drawn on it.")
@json_option
def main(
    checkpoint: Path, image: Path, question: str, device: str, save: Path | None, as_json: bool, **how: Any
) -> None:
    """Ask a trained model about an image."""
    try:
        check_packages()
        model, encoder = loaded(checkpoint, device)
        prompt = Prompt(_opened(image), question)
        answer = generate(model, encoder, [prompt], Decoding(**how))[0]
        if save is not None:
            _save(drawn(prompt.image, answer), save)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    if as_json:
        click.echo(json.dumps(said(answer)))
        return
    for turn in answer.turns:
        click.echo(turn)
    for look in answer.looks:
        click.echo(f"looked at: {look.kind} {list(look.box or ())}", err=True)
    for cause, times in answer.invalid.items():
        click.echo(f"{cause}: {times}", err=True)


if __name__ == "__main__":
    main(prog_name="python -m trainer.generate")
