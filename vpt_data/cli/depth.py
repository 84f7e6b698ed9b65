"""`vpt-data depth`: depth maps to the files that AURORA's recipes read."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vpt_data.cli.common import RAW, json_option, raw_root
from vpt_data.cli.output import Bar
from vpt_data.errors import UsageError

#: Spelled out, so that the help needs no import; a test compares them with `depth.maps.CONVENTIONS`.
_CONVENTIONS = ("inverse", "disparity", "metric")


@click.command()
@click.option("--raw", help=RAW)
@click.option("--images", default="ade20k/images", show_default=True, help="Folder of the images, in the raw root.")
@click.option("--maps", default="ade20k/depth", show_default=True, help="Folder of the depth maps, in the raw root.")
@click.option("--out", default="aurora", show_default=True, help="Folder to write to, in the raw root.")
@click.option("--convention", type=click.Choice(_CONVENTIONS), default="inverse", show_default=True,
              help="What numbers mean: higher is closer; the same, 0 is none; distance, 0 is none.")  # fmt: skip
@click.option(
    "--depth-model", default="unstated", show_default=True, help="What made the maps; part of the tokenizer's id."
)
@click.option("--tokenizer", default="pool10x10-q128", show_default=True, help="The depth tokenizer.")
@click.option("--points", type=click.IntRange(0), default=500, show_default=True, help="Images to ask about points.")
@click.option("--selection", type=click.Path(path_type=Path, dir_okay=False), help="JSON of a published selection.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed chooses other images and points.")
@json_option
def depth(
    raw: str | None, images: str, maps: str, out: str, convention: str, depth_model: str, tokenizer: str, points: int,
    selection: Path | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Make depth tokens, points and marked pictures of images and their depth maps, for the recipe aurora_depth."""
    import msgspec

    from vpt_data.depth.prepare import Settings, prepare
    from vpt_data.report import table

    root = raw_root(raw)
    if not isinstance(root, Path):
        raise UsageError(f"--raw {raw}: `depth` writes into the raw root; give --raw DIR.")
    with Bar("depth maps") as bar:
        made = prepare(
            Settings(
                root=root, images=images, maps=maps, out=out, convention=convention,  # type: ignore[arg-type]
                tokenizer=tokenizer, depth_model=depth_model, points=points, selection=selection, seed=seed,
            ),
            bar,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(made)))
        return
    rows = [("images with codes", f"{made.maps:,}"), ("images with points", f"{made.points:,}")]
    rows += [(f"dropped: {reason}", f"{count:,}") for reason, count in made.dropped.items()]
    click.echo(table(("what", "number"), rows))
    click.echo(f"\nMade: {', '.join(made.files)}")
