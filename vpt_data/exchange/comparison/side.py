"""One of the two sides of a comparison: its rows as samples, whatever they are stored as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import column
from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.exchange.published.lint import published_file
from vpt_data.exchange.published.rows import Converted, Converter, records_of
from vpt_data.inspect.view.flat import with_bytes
from vpt_data.store import AnyPath
from vpt_data.upstream.rawfile import RawFile

#: What of a sample is compared, or says which one it is.
COLUMNS = ("id", "take", "messages", "views", "images")


class Part(NamedTuple):
    """Some rows: what each is called (string[N]), and COLUMNS of them."""

    names: pa.Array
    samples: pa.Table


@dataclass(slots=True)
class Side:
    """A corpus, whose rows are called by their id, or a published file, whose rows are `record 1` and so on.

    corpus   None for a file
    refused  the records of a file that no corpus can hold, by reason, once all of it was read
    """

    place: AnyPath
    corpus: Corpus | None = None
    refused: Counter[str] = field(default_factory=Counter)

    def parts(self) -> Iterator[Part]:
        """Its rows, piece by piece, in their order; may be asked again."""
        if self.corpus is not None:
            for table in self.corpus.tables(columns=COLUMNS):
                yield Part(column(table, "id"), table.select(COLUMNS))
            return
        self.refused.clear()
        for made in self._converted():
            self.refused.update(str(row.reason) for row in made.refused)
            yield Part(_records(made), made.samples.select(COLUMNS))

    def rows(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Some rows as Python values, every column of a sample and the bytes of embedded images, by name."""
        if not names:
            return {}
        wanted = pa.array(sorted(names), pa.string())
        found: dict[str, dict[str, Any]] = {}
        if self.corpus is None:
            for made in self._converted():
                called = _records(made)
                here = pc.is_in(called, value_set=wanted)
                rows = made.samples.filter(here).to_pylist()
                found.update(zip(called.filter(here).to_pylist(), rows, strict=True))
            return found
        for shard in self.corpus.shards():
            ids = pa.chunked_array([column(table, "id") for table in shard.tables(["id"])], pa.string())
            at = np.flatnonzero(pc.is_in(ids, value_set=wanted).to_numpy(zero_copy_only=False))
            if len(at):
                rows = shard.pick(at, images=self.corpus.embed).to_pylist()
                found.update({row["id"]: with_bytes(row) for row in rows})
        return found

    def _converted(self) -> Iterator[Converted]:
        converter = Converter(repair=False, root=None)
        for part in records_of(RawFile(self.place, self.place.name.removesuffix(".gz"))):
            yield converter.convert(part)


def _records(made: Converted) -> pa.Array:
    return pc.binary_join_element_wise("record", pa.array(made.rows + 1).cast(pa.string()), " ")


def open_side(place: AnyPath) -> Side:
    """The corpus in a folder, or a published file; CorpusError for anything else."""
    return Side(place, open_corpus(place)) if place.is_dir() else Side(published_file(place))
