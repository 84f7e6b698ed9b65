"""What the commands print: progress bars, and the table that ends a build."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vpt_data.corpus.manifest import Manifest
    from vpt_data.store import AnyPath


class Bar:
    """A progress callback `(done, total)` behind a bar that is quiet where stderr is no terminal."""

    def __init__(self, label: str, in_bytes: bool = False) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=label, disable=None, unit="B" if in_bytes else "it", unit_scale=in_bytes)

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _update(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def show_manifest(made: Manifest, out: AnyPath, as_json: bool, word: str) -> None:
    """The account of a corpus, as a table or as its JSON; `word` says what was done with it."""
    from vpt_data.corpus import manifest
    from vpt_data.corpus.accounts import account
    from vpt_data.report import table

    if as_json:
        click.echo(manifest.dump(made), nl=False)
        return
    header = ("take", "expected", "read", "repaired", "dropped", "kept")
    click.echo(table(header, [[getattr(line, name) for name in header] for line in account(made)]))
    total = sum(split.rows for split in made.splits.values())
    shards = sum(len(split.shards) for split in made.splits.values())
    click.echo(f"\n{word}: {out}  {total:,} rows in {shards} shard{'' if shards == 1 else 's'}")
    images = made.images
    click.echo(
        f"images: {images.distinct:,} distinct, {images.embedded:,} embedded, {images.missing:,} not under the raw root"
    )
    for gap in made.missing:
        click.echo(f"missing: {gap}")
    if made.limited:
        click.echo("limited: made with --limit, not for publication")
    click.echo(f"fingerprint: {made.fingerprint}")
