"""`python -m trainer.generate`: ask a trained model about an image. From Python, `answer` takes many rows.

What needs torch is imported where it is used, so that `check_packages` can say first that it is not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from PIL import Image, ImageDraw

from trainer.generation.dialog import Decoding, Record, Row, question
from trainer.packages import check_device, check_packages
from vpt_data.cli.common import fail, json_option
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens import REGION
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import OutputError, RawError, UsageError, VptDataError, unknown_name
from vpt_data.images import policy, views
from vpt_data.report import visible

if TYPE_CHECKING:
    from trainer.data.encode import RowEncoder
    from trainer.model.vpt import VPTModel


def drawn(image: Image.Image, answer: Record) -> Image.Image:
    """A copy of the image with the boxes that the model looked at."""
    copy = views.pixels(image)
    pen = ImageDraw.Draw(copy)
    for look in answer.looks:
        if look.box is not None:
            x0, y0, x1, y1 = look.box
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=(255, 0, 64), width=max(2, max(copy.size) // 200))
    return copy


def _counted(answer: Record) -> str:
    boxes = sum(look.box is not None for look in answer.looks)
    return f"{boxes or 'no'} region{'' if boxes == 1 else 's'} drawn"


def as_dict(answer: Record) -> dict[str, Any]:
    """An answer for JSON; of the tokens their number."""
    looks = [look._asdict() for look in answer.looks]
    fields = {"text": answer.text, "turns": answer.turns, "looks": looks, "invalid": answer.invalid}
    return {**fields, "ended": answer.ended, "logprob": answer.logprob, "tokens": len(answer.tokens)}


def _opened(path: Path) -> Image.Image:
    try:
        return policy.decoded(path.read_bytes())
    except policy.UNDECODABLE as error:
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


def _sentence(kind: str | None) -> str:
    """What a prompted row of the corpora ends with, before its look of a kind."""
    if not kind:
        return ""
    if kind != REGION and kind not in ENCODERS:
        raise unknown_name("kind of look", kind, (REGION, *ENCODERS))
    return TEMPLATES["region" if kind == REGION else "reencode"].tail(conversation=False)


def _asked(model: VPTModel, encoder: RowEncoder, row: Row, how: Decoding) -> Record:
    from trainer.generation.answers import answer

    [record] = answer(model, encoder, [row], how)
    if record.fault is not None:
        raise UsageError(f"The question cannot be asked: {record.fault.detail}; use other words, or raise the cutoff.")
    return record


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder that a run wrote.")
@click.option("--weights", type=click.Path(path_type=Path), help="Instead: weights of a whole model, with --config.")
@click.option("--config", "name", help="With --weights: a name in trainer/configs, or a file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --weights: override a value of it.")
@click.option("--image", type=click.Path(path_type=Path), required=True, help="The image to ask about.")
@click.option("--question", "text", required=True, help="The question.")
@click.option("--prompted", "kind", help="Ask for a look in the words of prompted rows: region, dino, sam or clip.")
@click.option("--free", "kind", flag_value="", help="Ask without such words, as rows of free choice do (default).")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Over all turns.")
@click.option(
    "--max-actions",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Turns that may ask for a second look.",
)
@click.option("--force", help="First action: region, dino, sam or clip; the model chooses without it.")
@click.option(
    "--expand",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Cells by which a crop grows on every side.",
)
@click.option(
    "--on-invalid",
    type=click.Choice(["stop", "continue"]),
    default="stop",
    show_default=True,
    help="What to do after an invalid look.",
)
@click.option("--grammar", is_flag=True, help="Only well-formed regions can be said; else what is not is counted.")
@click.option("--temperature", default=0.0, show_default=True, help="0: the most likely token.")
@click.option("--seed", default=0, show_default=True, help="Seed of sampling.")
@click.option("--device", default="cpu", show_default=True, help="Device of torch.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the weights.",
)
@click.option("--save", type=click.Path(path_type=Path), help="Write the image with the regions drawn on it.")
@json_option
def main(
    checkpoint: Path | None,
    weights: Path | None,
    name: str | None,
    overrides: tuple[str, ...],
    image: Path,
    text: str,
    kind: str | None,
    device: str,
    dtype: str,
    save: Path | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Ask a trained model about an image."""
    try:
        check_packages()
        check_device(device)
        from trainer.generation.opening import loaded, published

        if checkpoint is not None and weights is None and name is None and not overrides:
            model, encoder = loaded(checkpoint, device, dtype)
        elif checkpoint is None and weights is not None and name is not None:
            model, encoder = published(weights, name, overrides, device, dtype)
        else:
            raise UsageError("Give --checkpoint RUN, or --weights PATH together with --config NAME.")
        opened = _opened(image)
        answer = _asked(model, encoder, question(opened, text + _sentence(kind)), Decoding(**how))
        if save is not None:
            _save(drawn(opened, answer), save)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    if as_json:
        click.echo(json.dumps(as_dict(answer)))
        return
    for turn in answer.turns:
        click.echo(visible(turn))
    for look in answer.looks:
        where = "" if look.box is None else f" {list(look.box)}"
        click.echo(f"looked at: {look.kind}{where}", err=True)
    for cause, times in answer.invalid.items():
        click.echo(f"{cause}: {times}", err=True)
    if save is not None:
        click.echo(f"written: {save} ({_counted(answer)})", err=True)


if __name__ == "__main__":
    main(prog_name="python -m trainer.generate")
