"""`vpt-data import`, `diff` and `export`: published files in, corpora compared, corpora out for other trainers."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal

import click

from vpt_data.cli.common import RAW, follow_links_option, json_option, place, raw_root_if_any
from vpt_data.cli.output import Bar, show_manifest
from vpt_data.errors import UsageError, unknown_name

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


@click.command()
@click.argument("a", type=place)
@click.argument("b", type=place)
@click.option("--ignore", "ignored", multiple=True, metavar="KIND", help="Do not look at this kind; can be repeated.")
@click.option("--examples", type=click.IntRange(0), default=3, show_default=True, help="So many of each kind.")
@click.option("--html", "page", type=place, metavar="FILE", help="Write a page with the examples side by side as well.")
@click.option("--raw", help=f"For the images of the page that are not in the shards: {RAW}")
@follow_links_option
@json_option
def diff(
    a: AnyPath,
    b: AnyPath,
    ignored: tuple[str, ...],
    examples: int,
    page: AnyPath | None,
    raw: str | None,
    as_json: bool,
) -> None:
    """Compare two corpora, or a corpus and a published VPT JSON file, row by row."""
    from vpt_data.exchange.comparison.difference import KINDS, difference
    from vpt_data.exchange.comparison.side import open_side

    for kind in ignored:
        if kind not in KINDS:
            raise unknown_name("kind of difference", kind, KINDS)
    sides = open_side(a), open_side(b)
    with Bar("comparing") as bar:
        read = 0

        def progress(rows: int) -> None:
            nonlocal read
            read += rows
            bar(read, read)

        found = difference(*sides, ignored, examples, progress)
    click.echo(json.dumps(found.as_dict()) if as_json else found.text())
    if page is not None:
        from vpt_data import store
        from vpt_data.exchange.comparison.page import document
        from vpt_data.inspect.view.page import render

        store.write(page, render(document(*sides, found, raw_root_if_any(raw))).encode())
        click.echo(f"written: {page}", err=True)
    if found.kinds:
        sys.exit(3)


@click.command()
@click.argument("corpus", type=place)
@click.option(
    "--to", "form", required=True, metavar="FORMAT", help="vpt-llamafactory, llamafactory, ms-swift, qwen-vl or openai."
)
@click.option("--out", type=place, required=True, help="Folder to make, or s3://BUCKET/PREFIX.")
@click.option(
    "--images",
    type=click.Choice(["path", "copy"]),
    default="path",
    show_default=True,
    help="Call images by their path, or write their files beside the records.",
)
@click.option("--prefix", default="", metavar="DIR", help="With --images path: the folder that paths are relative to.")
@click.option("--split", help="One split; default: all, a file each.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N rows of each split.")
@click.option("--raw", help=f"For images that are not in the shards: {RAW}")
@follow_links_option
@json_option
def export(
    corpus: AnyPath, form: str, out: AnyPath, images: Literal["path", "copy"], prefix: str, split: str | None,
    limit: int | None, raw: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a corpus in the form that another trainer reads."""
    import msgspec

    from vpt_data.corpus.reader import open_corpus
    from vpt_data.exchange.exporters import EXPORTERS
    from vpt_data.exchange.exporters.export import export as write
    from vpt_data.exchange.exporters.pictures import Files
    from vpt_data.images.root import ImageRoot

    if form not in EXPORTERS:
        raise unknown_name("format", form, EXPORTERS)
    if prefix and images == "copy":
        raise UsageError("--prefix is for images that stay where they are; leave it out, or give --images path.")
    opened = open_corpus(corpus)
    root = raw_root_if_any(raw)
    pictures = Files(out, images, prefix, None if root is None else ImageRoot(root))
    with Bar("exporting") as bar:
        made = write(opened, form, out, pictures, split, limit, bar)
    text = f"{made.text()}\n\nExported: {out}  {made.rows:,} rows"
    click.echo(msgspec.json.encode(made).decode() if as_json else text)
