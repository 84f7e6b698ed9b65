"""What a reader gets and gives: raw files in, annotation tables out, nothing lost on the way.

A reader is a generator `read(job) -> Iterator[Chunk]`. It opens files only through `RawFile.open` (which undoes gzip
and hashes what passes), decodes records into ANNOTATION columns, and says of every record it cannot use why not.
It never builds a prompt, never opens an image, never decides about quality: boxes stay as given, `key` stays null
unless the owner's id is unique.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from vpt_data.schema import Reason
from vpt_data.upstream.rawfile import RawFile

if TYPE_CHECKING:
    from vpt_data.take import Take


class Drop(NamedTuple):
    """A record that cannot be used: 0-based record index, 1-based line (None where lines mean nothing), reason."""

    row: int
    line: int | None
    reason: Reason
    detail: str
    dataset: str | None = None


class Chunk(NamedTuple):
    """Up to a few ten thousand records of one file, in file order.

    annotations  schema.ANNOTATION
    row          int64[N], 0-based record index in the main file, counting damaged records, not blank lines
    form         string[N] or None: the kind of record, for `forms` of a recipe (conversation, short, choice, ...)
    drops        the records of this stretch that are not in `annotations`
    line         int64[N] or None: the 1-based line of each record, where lines mean something
    tokenizers   the depth tokenizers that made codes in `annotations`
    frame        float64[N, 2] or None: width and height that the boxes of a row count in (1 and 1 for fractions), NaN
                 for pixels of the stored image; sizes of images may be known only after the reader is done
    """

    annotations: pa.Table
    row: np.ndarray
    form: pa.Array | None
    drops: list[Drop]
    line: np.ndarray | None = None
    frame: np.ndarray | None = None
    tokenizers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read, with the files it is joined to and the take options that matter to the reader.

    files   the main file under "rows", others under the role names of manifests/sources.toml
    take    the recipe entry (columns, box units, ... of own data); readers of fixed formats ignore it
    limit   read at most this many records
    """

    source: str
    dataset: str
    files: Mapping[str, RawFile]
    take: Take | None = None
    limit: int | None = None

    @property
    def rows(self) -> RawFile:
        """The main file."""
        return self.files["rows"]


@dataclass(frozen=True, slots=True)
class Source:
    """One upstream format: its reader, whether its records are whole conversations (`turns`), and have boxes."""

    read: Callable[[Job], Iterator[Chunk]]
    conversations: bool = False
    regions: bool = True
    forms: tuple[str, ...] = ()
    splittable: bool = False  # JSON records that mean the same in any part of the file
    own_files: bool = field(default=False)  # files are named in the recipe, not in manifests/sources.toml
