"""`vpt-data render`, `check` and `stats`: what can be done with a corpus."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from vpt_data.cli.common import RAW, follow_links_option, json_option, place, raw_root, raw_root_if_any
from vpt_data.cli.output import show_manifest
from vpt_data.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from vpt_data.store import AnyPath


@click.command()
@click.argument("corpus", type=place)
@click.option("--encoder", required=True, help="The encoder that its looks call: dino, sam or clip.")
@click.option("--prompted/--free-choice", default=None, help="With or without the sentence that asks for the look.")
@click.option("--out", type=place, required=True, help="Folder to make, or s3://BUCKET/PREFIX.")
@json_option
def render(corpus: AnyPath, encoder: str, prompted: bool | None, out: AnyPath, as_json: bool) -> None:
    """Write the same rows for another encoder, or prompted / free choice."""
    from vpt_data.dialogue.tokens.reencode import ENCODERS
    from vpt_data.exchange.rerender import rerender

    if encoder not in ENCODERS:
        raise unknown_name("encoder", encoder, ENCODERS)
    show_manifest(rerender(corpus, out, encoder, prompted), out, as_json, "Built")


@click.command()
@click.argument("target", type=place)
@click.option("--rebuild", type=click.IntRange(1), metavar="N", help="Make N random shards again, compare bytes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which shards --rebuild takes.")
@click.option("--near-duplicates", is_flag=True, help="Report images that are the same or look alike.")
@click.option("--against", type=place, help="A second corpus for --near-duplicates.")
@click.option("--raw", help=f"For --rebuild and for images that are not in the shards: {RAW}")
@follow_links_option
@json_option
def check(
    target: AnyPath, rebuild: int | None, seed: int, near_duplicates: bool, against: AnyPath | None,
    raw: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Verify a corpus (hashes, counts, row rules), or lint a published VPT JSON file."""
    from vpt_data.exchange.published.lint import lint
    from vpt_data.inspect import check as checks

    if against is not None and not near_duplicates:
        raise UsageError("--against needs --near-duplicates.")
    report = checks.check(target) if target.is_dir() else lint(target)
    reports: dict[str, Any] = {"check": report}
    if rebuild is not None:
        from vpt_data.pipeline.engines.local import Local
        from vpt_data.pipeline.rebuild import rebuild as again

        reports["rebuild"] = again(target, raw_root(raw), rebuild, Local(None), seed)
    if near_duplicates:
        from vpt_data.inspect import overlap

        reports["near_duplicates"] = overlap.compare(target, against, raw=raw_root_if_any(raw))
    if as_json:
        more = {name: part.as_dict() for name, part in reports.items() if name != "check"}
        click.echo(json.dumps({**report.as_dict(), **more}))
    else:
        click.echo("\n\n".join(part.text() for part in reports.values()))
    if report.findings or ("rebuild" in reports and reports["rebuild"].differ):
        sys.exit(3)


@click.command()
@click.argument("corpus", type=place)
@click.option("--html", "page", type=place, metavar="FILE", help="Write a page with plots of all numbers as well.")
@json_option
def stats(corpus: AnyPath, page: AnyPath | None, as_json: bool) -> None:
    """Count rows, boxes, cells, texts and image tokens of a corpus."""
    import msgspec

    from vpt_data.inspect import stats as statistics
    from vpt_data.inspect.stats_text import text

    found = statistics.stats(corpus)
    click.echo(json.dumps(msgspec.to_builtins(found)) if as_json else text(found))
    if page is not None:
        from vpt_data.corpus.manifest import write_text
        from vpt_data.inspect.view import stats_page

        write_text(page, stats_page.render(found))
        click.echo(f"written: {page}", err=True)


@click.command()
@click.argument("corpus", type=place)
@click.option("--take", "takes", multiple=True, metavar="TAKE", help="Of this take only; repeatable.")
@click.option("--reason", "reasons", multiple=True, metavar="REASON", help="For this reason only; repeatable.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="List so many of them.")
@json_option
def drops(corpus: AnyPath, takes: tuple[str, ...], reasons: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Count and list the records that are not in a corpus, with file, line and reason."""
    from vpt_data.inspect import drops as dropped

    found = dropped.drops(corpus, takes=takes, reasons=reasons, limit=limit)
    click.echo(json.dumps(found.as_dict()) if as_json else found.text())
