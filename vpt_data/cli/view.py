"""`vpt-data view` and `show`: a page with the rows of a corpus, or one row in the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vpt_data.cli.common import RAW, follow_links_option, json_option, place, raw_root_if_any, the_corpus
from vpt_data.cli.output import Bar
from vpt_data.errors import UsageError

if TYPE_CHECKING:
    from vpt_data.inspect.view.choose import Choice
    from vpt_data.inspect.view.document import Shown
    from vpt_data.inspect.view.item import Document
    from vpt_data.store import AnyPath

#: A page that is larger takes long to open and to send.
_LARGE = 30_000_000
#: Records that --dropped shows.
_DROPS = 50


def _text(_: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """Refuse bytes that are no text: a terminal may hand on any, and no column holds them."""
    try:
        (given or "").encode()
    except UnicodeEncodeError as error:
        name = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
        raise UsageError(f"{name} {given!r}: expected text in UTF-8; correct it.") from error
    return given


@click.command()
@click.argument("target", metavar="[CORPUS|FILE.json]", type=place, required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The page; default: the corpus folder's name with .html.")
@click.option("--rows", type=click.IntRange(1), default=200, show_default=True, help="Show so many rows, by hash.")
@click.option(
    "--where",
    metavar="SQL",
    callback=_text,
    help="Only rows that fit a condition, such as \"take = 'gqa' AND iou < 0.1\".",
)
@click.option("--ids", metavar="ID,...|@FILE", callback=_text, help="These rows; a file has one id on each line.")
@click.option("--problems", is_flag=True, help="Only rows with problems, the worst of the whole corpus.")
@click.option("--against", type=place, metavar="CORPUS", help="A second corpus: the same ids side by side.")
@click.option("--dropped", is_flag=True, help="Also some records of each reason that are not in the corpus.")
@click.option("--serve", is_flag=True, help="Browse all rows: a server on 127.0.0.1, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="For --serve; default: any free one.")
@click.option("--raw", help=f"For images that are not in the shards: {RAW}")
@follow_links_option
@json_option
def view(
    target: AnyPath | None, out: Path | None, rows: int, where: str | None, ids: str | None, problems: bool,
    against: AnyPath | None, dropped: bool, serve: bool, port: int, raw: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a page of rows with pictures, boxes, cells, crops and dialogues: one HTML file."""
    from vpt_data import store
    from vpt_data.inspect.view.choose import Choice
    from vpt_data.inspect.view.page import render

    root, choice = raw_root_if_any(raw), Choice(rows, _ids(ids), problems)
    if target is not None and target.is_file():
        corpus = target
        if where or against or dropped or serve:
            raise UsageError(f"{target}: --where, --against, --dropped and --serve need a corpus, and this is a file.")
        made = _published(target, choice, root)
    else:
        corpus = the_corpus(target)
        if serve:
            if out or where or ids or problems or against or dropped or as_json:
                raise UsageError(
                    "--serve shows all rows and writes no page; give only --port and --raw with it, and choose rows in "
                    "the page."
                )
            _serve(_shown(corpus, root), port)
            return
        made = _document(corpus, root, choice, where, against, _DROPS if dropped else 0)
    page = out or _beside(corpus)
    data = render(made).encode()
    store.write(page, data)
    if as_json:
        click.echo(json.dumps({"page": str(page), "bytes": len(data), "rows": len(made.items), "chosen": made.chosen}))
    else:
        _tell(made, page, len(data))


def _document(
    corpus: AnyPath, root: AnyPath | None, choice: Choice, where: str | None, against: AnyPath | None, drops: int
) -> Document:
    from vpt_data.inspect.view import document as documents

    second = None if against is None else _shown(against, root)
    return documents.document(_shown(corpus, root), choice, where, second, Bar, drops)


def _published(file: AnyPath, choice: Choice, root: AnyPath | None) -> Document:
    from vpt_data.exchange.published import items

    with Bar("drawing rows") as progress:
        return items.document(file, choice, root, progress)


def _serve(shown: Shown, port: int) -> None:
    """Answer requests until Ctrl-C, which is how this ends, so that it is no failure."""
    from vpt_data.inspect.view.browse import Browser
    from vpt_data.inspect.view.serve import Server

    try:
        server = Server(Browser(shown), port)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; give another, or none for any free one.") from error
    with server, suppress(KeyboardInterrupt):
        click.echo(f"Page: {server.address}  all rows of {shown.name}; Ctrl-C ends it")
        sys.stdout.flush()
        server.serve_forever()


@click.command()
@click.argument("wanted", metavar="ID", callback=_text)
@click.option("--corpus", type=place, help="The corpus; default: the only one under ./corpora.")
@click.option("--png", type=click.Path(path_type=Path), metavar="FILE", help="Draw the row as a picture.")
@click.option("--raw", help=f"For images that are not in the shards: {RAW}")
@follow_links_option
@json_option
def show(wanted: str, corpus: AnyPath | None, png: Path | None, raw: str | None, as_json: bool) -> None:
    """Print one row: its dialogue, boxes, origin and problems, in a terminal with its picture."""
    import msgspec

    from vpt_data import store
    from vpt_data.inspect import picture
    from vpt_data.inspect.view import document as documents
    from vpt_data.inspect.view import terminal

    shown = _shown(the_corpus(corpus), raw_root_if_any(raw))
    row, item = documents.one(shown, wanted)
    if png is not None:
        store.write(png, picture.png(picture.draw(row, shown.raw)))
    if as_json:
        click.echo(msgspec.json.encode(item).decode())
        return
    if sys.stdout.isatty() and row["images"]:
        columns = shutil.get_terminal_size().columns
        click.echo(terminal.picture(terminal.sketch(row, shown.raw), os.environ, columns), nl=False)
    click.echo(terminal.text(item))
    if png is not None:
        click.echo(f"\nPicture: {png}")


def _shown(place: AnyPath, root: AnyPath | None) -> Shown:
    from vpt_data.corpus.reader import open_corpus
    from vpt_data.inspect.view.document import Shown

    return Shown(open_corpus(place), root)


def _ids(given: str | None) -> list[str]:
    """The ids of an option: between commas, or the lines of a file."""
    if given is None:
        return []
    if not given.startswith("@"):
        return [part.strip() for part in given.split(",") if part.strip()]
    file = Path(given[1:])
    if not file.is_file():
        expected = "give ids between commas, or a file with one on each line"
        raise UsageError(f"--ids {given}: there is no such file; {expected}.")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _beside(corpus: AnyPath) -> Path:
    """A page beside the folder of a corpus; of one that is not on a disk, in the working folder."""
    if not isinstance(corpus, Path):
        return Path(f"{corpus.name}.html")
    page = corpus.resolve().with_name(f"{corpus.resolve().name}.html")
    return page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page


def _tell(made: Document, page: Path, size: int) -> None:
    """Where the page is, and what to look at in it."""
    click.echo(f"Page: {page}  {size / 1e6:.1f} MB, {len(made.items):,} rows")
    click.echo(made.chosen)
    kinds = Counter(problem.kind for item in made.items for problem in item.problems)
    if kinds:
        wrong = sum(bool(item.problems) for item in made.items)
        listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        click.echo(f"Look at: {wrong:,} of these rows have problems ({listed}); sort the page by `problems first`.")
    if size > _LARGE:
        click.echo("The page is large; --rows N shows fewer rows.")
