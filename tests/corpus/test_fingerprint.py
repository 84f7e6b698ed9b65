"""A change that does not claim to change data leaves the sample corpus as it is, row by row."""

from __future__ import annotations

from pathlib import Path

from vpt_data.corpus.manifest import read

PINNED = "f79d2291321c923944adba318806dd622176064ade52bfb3dbecf68b25ae6807"
ROWS = 319
WHAT_TO_DO = """
The sample corpus (recipe `sample`, `vpt-data sample --rows 200`, reference mode) is not what it was.

If you did not mean to change data, this is the bug to find: build the sample with and without your change and compare
the rows (`vpt-data stats` of both, then the shards). If you did, pin the new fingerprint here, say in CHANGELOG.md
which rows differ and how, and raise SAMPLE_VERSION if it is the sample root that changed. A new Pillow may draw text
in another size, which moves boxes: then only this number changes, and `constraints.txt` says with which version.
"""


def test_the_sample_corpus_is_what_it_was(reference_corpus: Path) -> None:
    made = read(reference_corpus)
    found = (made.fingerprint, sum(split.rows for split in made.splits.values()))
    assert found == (PINNED, ROWS), WHAT_TO_DO


def test_the_fingerprint_is_that_of_the_rows_and_no_file(reference_corpus: Path, embedded_corpus: Path) -> None:
    """Images in the shards are other rows: their hashes are in them."""
    one, other = read(reference_corpus), read(embedded_corpus)
    assert len(one.fingerprint) == 64
    assert one.fingerprint != other.fingerprint
    assert one.components == other.components
