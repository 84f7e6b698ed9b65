"""Verify a corpus from its files alone: hashes, counts, and what holds for every row.

Shards are read row group by row group; of each row only its id and its hash are kept. Every rule that is
broken gives one finding. What cannot be read is found once, and rules that need it are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vpt_data import columns, store
from vpt_data.corpus import fingerprint, image_counts, manifest
from vpt_data.corpus.manifest import ImageLicense, Manifest, ShardRecord
from vpt_data.corpus.reader import DROPPED, ORIGINS, Shard, difference, open_corpus, side_table
from vpt_data.errors import CorpusError
from vpt_data.inspect import row_rules
from vpt_data.report import Broken, CheckResult, Findings
from vpt_data.schema import DROP, ORIGIN, SAMPLE, SCHEMA_VERSION
from vpt_data.store import AnyPath, sha256

RULES: Final = {
    "schema_version": "the manifest is of the schema version that this tool reads",
    "shard_name": "a shard is data/SPLIT-NNNNN-of-NNNNN.parquet",
    "shard_missing": "every shard of the manifest is there",
    "shard_bytes": "a shard has the size that the manifest says",
    "shard_sha256": "a shard has the sha256 that the manifest says",
    "shard_readable": "a shard is a Parquet file",
    "schema": "a shard has the columns of a sample, by name and type",
    "features": "a shard says which columns are images (the `huggingface` key)",
    "foreign_file": "data/ holds the shards of the manifest and nothing else",
    "shard_rows": "a shard has as many rows as the manifest says",
    "split_rows": "the rows of a split are those of its shards",
    "component_sum": "of every take, what was read is kept or dropped",
    "kept_sum": "the rows of all splits are what the takes kept",
    "take_rows": "the shards hold as many rows of a take as it kept",
    "images": "the rows show as many images, under the same licences, as the manifest says",
    "side_table": "dropped.parquet and origins.parquet are there, with their columns",
    "dropped_rows": "dropped.parquet has as many rows of a take and reason as the manifest says",
    "origins": "origins.parquet has one row for each sample, and names inputs of the manifest",
    "repaired_rows": "origins.parquet names as many repaired rows of a take and kind as the manifest",
    "id_repeated": "no id occurs twice",
    "id_take": "an id begins with the name of its take",
    "split": "a row is in a shard of its split",
    "fingerprint": "the fingerprint of the manifest is that of the rows",
    **row_rules.RULES,
}

_SHARD_NAME: Final = re.compile(r"data/(?P<split>\w+(\.\w+)*)-\d{5}-of-\d{5}\.parquet")


def check(corpus: AnyPath, rows: bool = True) -> CheckResult:
    """Check a corpus folder; CorpusError if it is none, or its manifest cannot be read.

    rows   read the rows and hash the shards; without, only what takes no time is looked at: the names, sizes and
           footers of the shards, the tables beside them, and whether the numbers of the manifest agree
    """
    return _Check(corpus, rows).report()


@dataclass(slots=True)
class _Seen:
    """What is kept of the rows of all shards."""

    ids: list[pa.Array] = field(default_factory=list)
    hashes: list[pa.Array] = field(default_factory=list)
    takes: Counter[str] = field(default_factory=Counter)
    images: list[pa.Table] = field(default_factory=list)
    complete: bool = True

    @property
    def rows(self) -> int:
        """Rows read."""
        return sum(map(len, self.ids))


class _Check:
    """One run over one corpus."""

    def __init__(self, corpus: AnyPath, rows: bool) -> None:
        self._corpus = corpus
        self._reads_rows = rows
        self._opened = open_corpus(corpus)
        self._made = self._opened.manifest
        self._findings = Findings(RULES)
        self._seen = _Seen()
        self._legacy = legacy_takes(self._made)

    def report(self) -> CheckResult:
        """Run every rule."""
        made = self._made
        if made.schema_version != SCHEMA_VERSION:
            self._found(manifest.NAME, "schema_version", f"{made.schema_version}, expected {SCHEMA_VERSION}")
        self._foreign_files()
        for split, part in made.splits.items():
            for record in tqdm(part.shards, desc=f"checking {split}", disable=None, unit="shard"):
                self._shard(Shard(self._corpus / record.file, split, self._opened.embed), record)
        self._totals()
        self._dropped()
        self._origins()
        if self._seen.complete:
            self._fingerprint()
        splits = {"rows per split": {split: part.rows for split, part in made.splits.items()}}
        return CheckResult(str(self._corpus), "corpus", self._seen.rows, self._findings.findings(), RULES, splits)

    def _found(self, where: str, rule: str, example: str, count: int = 1) -> None:
        self._findings.add(where, Broken(rule, count, example))

    def _foreign_files(self) -> None:
        known = {shard.file for part in self._made.splits.values() for shard in part.shards}
        there = (store.below(path, self._corpus) for path in (self._corpus / "data").glob("**/*"))
        for name in sorted(there):
            if name not in known:
                self._found("data/", "foreign_file", name)

    def _shard(self, shard: Shard, record: ShardRecord) -> None:
        """Check one shard; what it holds goes to `_seen`."""
        try:
            if self._file(shard, record) and self._schema(shard, record) and self._reads_rows:
                self._rows(shard, record)
                return
        except CorpusError as error:
            self._found(record.file, "shard_readable", str(error))
        self._seen.complete = False

    def _file(self, shard: Shard, record: ShardRecord) -> bool:
        """Check a shard as a file; whether its rows can be looked at."""
        name = _SHARD_NAME.fullmatch(record.file)
        if name is None or name["split"] != shard.split:
            self._found(record.file, "shard_name", f"in split {shard.split}")
            return False
        if not shard.path.is_file():
            self._found(record.file, "shard_missing", "not there")
            return False
        if (size := shard.path.stat().st_size) != record.bytes:
            self._found(record.file, "shard_bytes", f"{size:,} bytes, the manifest says {record.bytes:,}")
        elif self._reads_rows and (digest := sha256(shard.path)) != record.sha256:
            self._found(record.file, "shard_sha256", f"{digest}, the manifest says {record.sha256}")
        return True

    def _schema(self, shard: Shard, record: ShardRecord) -> bool:
        with shard.opened() as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            keys = file.metadata.metadata or {}
        if rows != record.rows:
            self._found(record.file, "shard_rows", f"{rows:,}, the manifest says {record.rows:,}")
        if not schema.equals(SAMPLE):
            self._found(record.file, "schema", difference(schema, SAMPLE))
            return False
        if keys.get(b"huggingface") != SAMPLE.metadata[b"huggingface"]:
            self._found(record.file, "features", "not that of a sample" if b"huggingface" in keys else "missing")
        return True

    def _rows(self, shard: Shard, record: ShardRecord) -> None:
        """Check the rows of a shard, row group by row group."""
        groups = []
        for samples in shard.tables(images=True):
            ids = columns.column(samples, "id")
            self._seen.ids.append(ids)
            self._seen.hashes.append(fingerprint.sample_hashes(samples))
            for entry in samples["take"].value_counts().to_pylist():
                self._seen.takes[str(entry["values"])] += entry["counts"]
            groups.append(image_counts.images_of(samples))
            key = pc.replace_substring_regex(ids, r"^[^/]*/", "")
            due = pc.binary_join_element_wise(columns.column(samples, "take"), key, "/")
            self._rule(record, "id_take", ids, ~columns.flags(pc.equal(due, ids)))
            fits = pc.equal(columns.column(samples, "split"), shard.split)
            self._rule(record, "split", ids, ~columns.flags(fits))
            for broken in row_rules.broken(samples, self._legacy, shard.embed):
                self._findings.add(record.file, broken)
        self._seen.images.append(image_counts.of_shard(groups))

    def _rule(self, record: ShardRecord, rule: str, ids: pa.Array, bad: columns.Bools) -> None:
        if bad.any():
            self._found(record.file, rule, str(ids[int(bad.argmax())].as_py()), int(bad.sum()))

    def _totals(self) -> None:
        """Check the numbers of the manifest against each other and against what was read."""
        made, seen = self._made, self._seen
        for split, part in made.splits.items():
            rows = sum(shard.rows for shard in part.shards)
            if rows != part.rows:
                self._found(manifest.NAME, "split_rows", f"{split}: {part.rows:,}, its shards have {rows:,}")
        for take in made.components:
            gone = sum(take.dropped.values())
            if take.read != take.kept + gone:
                example = f"{take.take}: read {take.read:,}, kept {take.kept:,}, dropped {gone:,}"
                self._found(manifest.NAME, "component_sum", example)
        kept, rows = (
            sum(take.kept for take in made.components),
            sum(part.rows for part in made.splits.values()),
        )
        if kept != rows:
            self._found(manifest.NAME, "kept_sum", f"kept {kept:,}, rows {rows:,}")
        if not seen.complete:
            return
        said = Counter({take.take: take.kept for take in made.components})
        self._compare(manifest.NAME, "take_rows", said, seen.takes, "the shards hold")
        self._images()

    def _images(self) -> None:
        """Compare what the manifest says of images with what the rows show; only a build sees which are missing."""
        stated, images = self._made.images, self._seen.images
        found = image_counts.count(lambda: [iter(images)], self._opened.embed)
        for name in ("distinct", "embedded", "licenses"):
            if getattr(stated, name) != getattr(found, name):
                there, here = (_images_text(getattr(record, name)) for record in (stated, found))
                self._found(manifest.NAME, "images", f"{name}: {there}, the shards hold {here}")

    def _compare(self, where: str, rule: str, said: Counter[str], there: Counter[str], holder: str) -> None:
        for name in sorted(said.keys() | there.keys()):
            if said[name] != there[name]:
                self._found(where, rule, f"{name}: {said[name]:,}, {holder} {there[name]:,}")

    def _side_table(self, name: str, schema: pa.Schema) -> pa.Table | None:
        """A table beside the shards, or None, which is a finding."""
        table = side_table(self._corpus, name, schema)
        if isinstance(table, str):
            self._found(name, "side_table", table)
            return None
        return table

    def _dropped(self) -> None:
        name = DROPPED
        if (table := self._side_table(name, DROP)) is None:
            return
        groups = table.group_by(["take", "reason"]).aggregate([([], "count_all")]).to_pylist()
        there = Counter({f"{group['take']}, {group['reason']}": group["count_all"] for group in groups})
        self._compare(name, "dropped_rows", self._stated("dropped"), there, "the table has")

    def _repaired(self, origins: pa.Table) -> None:
        repaired = columns.unlist(columns.column(origins, "repaired"))
        takes = pc.replace_substring_regex(columns.column(origins, "id"), "/.*", "").take(pa.array(repaired.rows))
        there = Counter(pc.binary_join_element_wise(takes, repaired.values, ", ").to_pylist())
        self._compare(ORIGINS, "repaired_rows", self._stated("repaired"), there, "the table has")

    def _stated(self, what: Literal["dropped", "repaired"]) -> Counter[str]:
        """What the manifest counts, by take and kind."""
        counts = ((take.take, getattr(take, what)) for take in self._made.components)
        return Counter({f"{take}, {kind}": count for take, kinds in counts for kind, count in kinds.items()})

    def _origins(self) -> None:
        """Check that each sample has an origin; without the ids of all samples only their number is compared."""
        if (table := self._side_table(ORIGINS, ORIGIN)) is None:
            return
        self._repaired(table)
        if not self._seen.complete:
            rows = sum(part.rows for part in self._made.splits.values())
            if len(table) != rows:
                self._found(ORIGINS, "origins", f"{len(table):,} rows, the manifest says {rows:,}")
            return
        ids = self._ids()
        self._repeats(ORIGINS, "origins", table["id"])
        for without, have, what in ((ids, table["id"], "no row for"), (table["id"], ids, "no sample")):
            gone = without.filter(pc.invert(pc.is_in(without, value_set=have)))
            if len(gone):
                self._found(ORIGINS, "origins", f"{what} {gone[0].as_py()}", len(gone))
        inputs = {record.file for record in self._made.inputs}
        for file in sorted(set(map(str, pc.unique(table["file"]).to_pylist())) - inputs):
            self._found(ORIGINS, "origins", f"{file} is not an input")

    def _fingerprint(self) -> None:
        """Check what only all rows together show."""
        self._repeats("data/", "id_repeated", self._ids())
        found = fingerprint.fingerprint(
            [fingerprint.run(*pair) for pair in zip(self._seen.ids, self._seen.hashes, strict=True)]
        )
        if found != self._made.fingerprint:
            self._found(manifest.NAME, "fingerprint", f"{self._made.fingerprint}, the rows have {found}")

    def _ids(self) -> pa.ChunkedArray:
        return pa.chunked_array(self._seen.ids, pa.string())

    def _repeats(self, where: str, rule: str, ids: pa.ChunkedArray) -> None:
        counts = ids.value_counts()
        again = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(again):
            extra = pc.sum(again.field("counts")).as_py() - len(again)
            name, times = (again[0][key].as_py() for key in ("values", "counts"))
            self._found(where, rule, f"{name} occurs {times} times", extra)


def _images_text(value: int | list[ImageLicense]) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(f"{entry.folder or 'own'} {entry.license} {entry.images:,}" for entry in value) or "none"


def legacy_takes(made: Manifest) -> frozenset[str]:
    """Takes whose recipe asks for `edge = legacy`: their cells may be beyond the grid."""
    resolved = made.recipe.resolved
    takes = resolved.get("take", {})
    edge = resolved.get("edge", "floor")
    return frozenset(name for name, take in takes.items() if (take.get("edge") or edge) == "legacy")
