"""Whether a corpus is fit to be published: on a disk, finished, whole, with rows, and not a trial."""

from __future__ import annotations

from pathlib import Path

from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.errors import CorpusError
from vpt_data.inspect.check import check
from vpt_data.store import AnyPath


def ready(place: AnyPath, force: bool) -> Corpus:
    """The corpus in a folder, after the half of `vpt-data check` that reads no row.

    force   also one that was made with --limit

    Raises CorpusError for everything that keeps it from being published.
    """
    if not isinstance(place, Path):
        raise CorpusError(f"{place}: a push needs the files on a disk; copy the corpus to a folder first.")
    corpus = open_corpus(place)
    made = corpus.manifest
    if not any(split.rows for split in made.splits.values()):
        raise CorpusError(
            f"{place}: the corpus has no rows, so there is nothing to publish; see dropped.parquet there."
        )
    if made.limited and not force:
        raise CorpusError(
            f"{place}: the corpus was made with --limit, so it is a trial of its recipe; build it without, or give "
            "--force."
        )
    findings = check(place, rows=False).findings
    if findings:
        rules = ", ".join(f"{found.rule} ({found.where}: {found.example})" for found in findings[:3])
        more = f" and {len(findings) - 3} more rules" if len(findings) > 3 else ""
        raise CorpusError(
            f"{place}: the files are not what the manifest says: {rules}{more}; see `vpt-data check {place}`, and "
            "build the corpus again."
        )
    return corpus
