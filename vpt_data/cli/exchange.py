"""`vpt-data import`: the files that the authors of VPT published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vpt_data.cli.common import follow_links_option, json_option, place, raw_root_if_any
from vpt_data.cli.output import Bar, show_manifest

if TYPE_CHECKING:
    from vpt_data.store import AnyPath


@click.command("import")
@click.argument("file", type=place)
@click.option("--out", type=place, required=True, help="Folder to make, or s3://BUCKET/PREFIX.")
@click.option("--repair", is_flag=True, help="Put tokens beyond the grid, and their crops, right, and count them.")
@click.option("--raw", help="Raw root with the images; default: $VPT_DATA_RAW, else ./raw, else the file's folder.")
@follow_links_option
@json_option
def import_published(file: AnyPath, out: AnyPath, repair: bool, raw: str | None, as_json: bool) -> None:
    """Make a corpus of a published VPT JSON file."""
    from vpt_data.exchange.published.importing import import_file
    from vpt_data.inspect.check import legacy_takes

    with Bar("importing") as bar:
        made = import_file(file, out, repair, raw_root_if_any(raw) or file.parent, bar)
    show_manifest(made, out, as_json, "Imported")
    if legacy_takes(made):
        click.echo("Some rows name cells beyond the grid, which no token exists for: --repair corrects them.", err=True)
