"""What pass 1 leaves of an input: four files that share one stem, and what their records say."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from vpt_data.corpus.manifest import InputRecord
from vpt_data.store import AnyPath


class Flush(msgspec.Struct, frozen=True):
    """Rows that pass 1 wrote in one go, sorted by partition, in batches that hold whole partitions.

    rows        how many rows each batch has
    partitions  the first partition of each batch
    """

    rows: list[int]
    partitions: list[int]


class Prepared(msgspec.Struct, frozen=True):
    """The record of an input that pass 1 has finished.

    files     the raw files that were read to their end, with size and sha256 (none for a window: see SurveyRecord)
    records   how many records the input has, damaged ones included
    owned     how many of them have an owner's id for a key
    problems  what is wrong with folders and archives in which the size of an image was looked for
    schemes   the schemes of the identities of its images: "coco", "vg", ...
    tokenizers  the depth tokenizers that made its codes
    """

    files: list[InputRecord]
    flushes: list[Flush]
    records: int
    owned: int
    problems: list[str] = []
    schemes: list[str] = []
    tokenizers: list[str] = []


class SurveyRecord(msgspec.Struct, frozen=True):
    """A file that is read in windows: its size and sha256, and how many lines end before each window."""

    file: InputRecord
    lines: list[int]


@dataclass(frozen=True, slots=True)
class PreparedFiles:
    """The files of an input under the work folder."""

    stem: AnyPath

    @property
    def annotations(self) -> AnyPath:
        """Arrow file with schema ANNOTATION, in the batches that the record's flushes name."""
        return self.stem.with_name(f"{self.stem.name}.arrow")

    @property
    def index(self) -> AnyPath:
        """Arrow file with schema INDEX: the same rows in the same batches."""
        return self.stem.with_name(f"{self.stem.name}.index")

    @property
    def rejects(self) -> AnyPath:
        """Arrow file with schema REJECTS."""
        return self.stem.with_name(f"{self.stem.name}.rejects")

    @property
    def survey(self) -> AnyPath:
        """A SurveyRecord, beside the first window of a file that is read in windows."""
        return self.stem.with_name(f"{self.stem.name}.survey")

    @property
    def record(self) -> AnyPath:
        """A Prepared, written last."""
        return self.stem.with_name(f"{self.stem.name}.json")

    def read_record(self) -> Prepared:
        """The record of the finished input."""
        return msgspec.json.decode(self.record.read_bytes(), type=Prepared)

    def read_survey(self) -> SurveyRecord:
        """What is known of the whole file."""
        return msgspec.json.decode(self.survey.read_bytes(), type=SurveyRecord)
