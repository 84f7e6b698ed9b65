"""Images that a corpus holds twice, or shares with another one: by name, by content, and nearly the same.

The distinct images of each split are compared. A perceptual hash (phash.py) says which look nearly the same,
which is wrong now and then; so the result is a report to look at, and never a reason to drop a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vpt_data import columns, hashing, report
from vpt_data.corpus.reader import open_corpus
from vpt_data.errors import UsageError
from vpt_data.images import identity, policy
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.phash import Ints, UInt64, close_pairs, difference_hash, equal_pairs
from vpt_data.store import AnyPath

SAME_IMAGE: Final = "same image"
SAME_CONTENT: Final = "same content"
NEAR: Final = "near-duplicate"
#: What each kind of overlap means, for the report.
KINDS: Final = {
    SAME_IMAGE: "one image by its name, in two splits",
    SAME_CONTENT: "the same bytes under two names",
    NEAR: "other bytes and another name, and it looks the same",
}
MAX_RADIUS = 10
#: Sides a JPEG is decoded to at least. Smaller is not faster, and moves bits of the hash.
_DRAFT = 144


@dataclass(frozen=True, slots=True)
class Found:
    """Images of split `a` with a partner in split `b` and the other way round, and the pairs they form."""

    kind: str
    a: str
    b: str
    images_a: int
    images_b: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Example:
    """One pair; `distance` is the number of bits in which the hashes differ, null where they were not compared."""

    kind: str
    a: str
    path_a: str
    b: str
    path_b: str
    distance: int | None


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two corpora, or the splits of one, have in common.

    images      distinct images of each split
    plain       images too plain for the hash; they are compared by name and content only
    unreadable  images that could not be read, and the first of them with the reason
    """

    target: str
    against: str | None
    radius: int
    images: dict[str, int]
    plain: int
    unreadable: int
    first_unreadable: str | None
    found: list[Found]
    examples: list[Example]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """The report for people."""
        listed = ", ".join(f"{name} {count:,}" for name, count in self.images.items())
        lines = [f"Distinct images: {listed or 'none'}."]
        if self.plain:
            lines.append(f"{self.plain:,} are too plain to look alike or not; compared by name and content only.")
        if self.unreadable:
            lines.append(f"{self.unreadable:,} could not be read; the first: {self.first_unreadable}")
        if not self.found:
            return "\n".join([*lines, f"{self.target}: no overlap found, up to {self.radius} of 64 bits."])
        rows = [
            [one.kind, one.a, one.b, *(f"{number:,}" for number in (one.images_a, one.images_b, one.pairs))]
            for one in self.found
        ]
        lines += ["", report.table(["overlap", "a", "b", "images of a", "images of b", "pairs"], rows), ""]
        lines += [f"{kind}: {KINDS[kind]}" for kind in dict.fromkeys(one.kind for one in self.found)] + [""]
        for one in self.examples:
            bits = "" if one.distance is None else f" ({one.distance} bits)"
            lines.append(f"{one.kind}: {one.a} {one.path_a} - {one.b} {one.path_b}{bits}")
        lines += [
            "",
            "Near-duplicates are candidates: printed pages and plain scenes look alike to a hash. Look at them.",
        ]
        return "\n".join(lines)


def compare(
    corpus: AnyPath, against: AnyPath | None = None, *, raw: AnyPath | None = None, radius: int = 4, examples: int = 20
) -> Overlap:
    """Compare the images of the splits of a corpus with each other, or with those of another corpus.

    raw       where the images of a corpus in reference mode are; also says which Visual Genome images are COCO's
    radius    bits of 64 that near-duplicates may differ in
    examples  pairs to name, for each kind; pairs across splits and of small distance first

    Takes about 100 bytes of memory an image. Raises UsageError for a reference corpus without a raw root and for a
    radius out of range, CorpusError for what is no corpus.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise UsageError(f"A radius of {radius} bits is not between 0 and {MAX_RADIUS}; 4 is a good one.")
    seen = _Seen(raw)
    seen.add(corpus, "")
    if against is not None:
        seen.add(against, "against:")
    table = seen.table()
    counter = _Counter(table, len(seen.sides), seen.first_of_against if against is not None else None, examples)
    counter.run(radius)
    return Overlap(
        target=str(corpus),
        against=None if against is None else str(against),
        radius=radius,
        images=dict(zip(seen.sides, np.bincount(table.side, minlength=len(seen.sides)).tolist(), strict=True)),
        plain=int(table.flat.sum()) - int(table.unread.sum()),
        unreadable=int(table.unread.sum()),
        first_unreadable=seen.failure,
        found=counter.found(seen.sides),
        examples=counter.named(seen.sides),
    )


# Reading


class _Table(NamedTuple):
    """One entry for each distinct image of each side: side int64, identities and hash uint64, content two uint64."""

    side: Ints
    identities: UInt64
    content: npt.NDArray[np.uint64]
    hash: UInt64
    flat: npt.NDArray[np.bool_]
    unread: npt.NDArray[np.bool_]
    paths: pa.Array


class _Look(NamedTuple):
    """What is kept of one image: 16 bytes of its sha256, its hash if that says something, why it is unreadable."""

    content: bytes
    hash: int | None
    failure: str | None


class _Seen:
    """Collects the images of corpora, shard by shard."""

    def __init__(self, raw: AnyPath | None) -> None:
        self._raw = raw
        self.sides: list[str] = []
        self.first_of_against = 0
        self.failure: str | None = None
        self._parts: list[_Table] = []

    def add(self, corpus: AnyPath, prefix: str) -> None:
        """Read all images of a corpus."""
        opened = open_corpus(corpus)
        if not opened.embed and self._raw is None:
            raise UsageError(f"{corpus}: its images are not in the shards; give their raw root with --raw.")
        root = None if opened.embed or self._raw is None else ImageRoot(self._raw)
        self.first_of_against = len(self.sides)
        self.sides += [prefix + split for split in opened.manifest.splits]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for shard in tqdm(opened.shards(), desc="looking", disable=None, unit="shard"):
                for group in shard.tables(["images", "image_info"], images=True):
                    self._group(group, self.sides.index(prefix + shard.split), root, pool)

    def _group(self, group: pa.Table, side: int, root: ImageRoot | None, pool: ThreadPoolExecutor) -> None:
        listed = columns.unlist(columns.column(group, "images")).values
        known = pc.struct_field(listed, "path").dictionary_encode()
        first = pa.array(np.unique(known.indices.to_numpy(zero_copy_only=False), return_index=True)[1])
        paths = known.dictionary
        if root is None:
            blobs = pc.struct_field(listed.take(first), "bytes").cast(pa.binary())
            looks = list(pool.map(_embedded, paths.to_pylist(), blobs))
        else:
            info = columns.unlist(columns.column(group, "image_info")).values.take(first)
            looks = list(pool.map(partial(_referenced, root), paths.to_pylist(), info.to_pylist()))
        failures = [look.failure for look in looks if look.failure is not None]
        self.failure = self.failure or next(iter(failures), None)
        hashes = [look.hash for look in looks]
        self._parts.append(
            _Table(
                np.full(len(looks), side),
                hashing.seeded(identity.identities(paths, self._raw), 0),
                np.frombuffer(b"".join(look.content for look in looks), np.uint64).reshape(-1, 2),
                np.array([number or 0 for number in hashes], np.uint64),
                np.array([number is None for number in hashes], bool),
                np.array([look.failure is not None for look in looks], bool),
                paths,
            )
        )

    def table(self) -> _Table:
        """All images, each path once a side."""
        if not self._parts:
            none = np.zeros(0, np.uint64)
            flags = np.zeros(0, bool)
            return _Table(
                np.zeros(0, np.int64), none, none.reshape(0, 2), none, flags, flags, pa.array([], pa.string())
            )
        *arrays, paths = zip(*self._parts, strict=True)
        side, identities, content, found, flat, unread = (np.concatenate(parts) for parts in arrays)
        self._parts.clear()
        names = pa.concat_arrays(paths)
        first = np.unique(np.stack([side.astype(np.uint64), hashing.seeded(names, 0)]), axis=1, return_index=True)[1]
        keep = np.sort(first)
        return _Table(
            side[keep],
            identities[keep],
            content[keep],
            found[keep],
            flat[keep],
            unread[keep],
            names.take(pa.array(keep)),
        )


def _embedded(path: str, blob: pa.BinaryScalar) -> _Look:
    data = blob.as_py()
    return _Look(bytes(16), None, f"{path}: not in the shard") if data is None else _look(path, data)


def _referenced(root: ImageRoot, path: str, row: dict[str, Any]) -> _Look:
    found = root.load(path, row["width"], row["height"])
    return _Look(bytes(16), None, found.detail) if isinstance(found, Failure) else _look(path, found.data)


def _look(path: str, data: bytes) -> _Look:
    content = hashlib.sha256(data).digest()[:16]
    try:
        return _Look(content, difference_hash(policy.decoded(data, _DRAFT)), None)
    except policy.UNDECODABLE as error:
        return _Look(content, None, f"{path}: cannot be decoded ({error})")


# Comparing


class _Counter:
    """Counts pairs and the images in them by kind and sides, and keeps a few to name."""

    def __init__(self, table: _Table, sides: int, first_of_against: int | None, examples: int) -> None:
        self._table, self._sides, self._split, self._limit = table, sides, first_of_against, examples
        self._found: list[tuple[str, int, int, int, int, int]] = []
        self._examples: list[tuple[str, bool, int, str, str, int, int]] = []

    def run(self, radius: int) -> None:
        """Find all pairs."""
        table = self._table
        self._count(SAME_IMAGE, self._by_name())
        good = np.flatnonzero(~table.unread)
        self._count(SAME_CONTENT, self._by_content(good))
        looked = np.flatnonzero(~table.flat)
        self._count(NEAR, self._by_looks(looked, radius))

    def _by_name(self) -> Iterator[tuple[Ints, Ints]]:
        for left, right in equal_pairs(self._table.identities):
            yield self._only(left, right, self._table.side[left] != self._table.side[right])

    def _by_content(self, among: Ints) -> Iterator[tuple[Ints, Ints]]:
        content, identities = self._table.content, self._table.identities
        for i, j in equal_pairs(content[among, 0]):
            left, right = among[i], among[j]
            same = content[left, 1] == content[right, 1]
            yield self._only(left, right, same & (identities[left] != identities[right]))

    def _by_looks(self, among: Ints, radius: int) -> Iterator[tuple[Ints, Ints]]:
        content, identities = self._table.content, self._table.identities
        for i, j in close_pairs(self._table.hash[among], radius):
            left, right = among[i], among[j]
            other = (content[left] != content[right]).any(axis=1)
            yield self._only(left, right, other & (identities[left] != identities[right]))

    def _only(self, left: Ints, right: Ints, keep: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """The pairs to keep, the lower side first; with a second corpus only those across both."""
        side = self._table.side
        if self._split is not None:
            keep &= (side[left] < self._split) != (side[right] < self._split)
        left, right = left[keep], right[keep]
        swap = side[left] > side[right]
        return np.where(swap, right, left), np.where(swap, left, right)

    def _count(self, kind: str, batches: Iterator[tuple[Ints, Ints]]) -> None:
        side = self._table.side
        pairs = np.zeros(self._sides * self._sides, np.int64)
        has = np.zeros((len(side), self._sides), bool)
        for left, right in batches:
            pairs += np.bincount(side[left] * self._sides + side[right], minlength=len(pairs))
            has[left, side[right]] = True
            has[right, side[left]] = True
            self._keep_examples(kind, left, right)
        for both in np.flatnonzero(pairs):
            a, b = divmod(int(both), self._sides)
            with_b, with_a = int(has[side == a, b].sum()), int(has[side == b, a].sum())
            self._found.append((kind, a, b, with_b, with_a, int(pairs[both])))

    def _keep_examples(self, kind: str, left: Ints, right: Ints) -> None:
        table = self._table
        distance = np.bitwise_count(table.hash[left] ^ table.hash[right]).astype(np.int64)
        within = table.side[left] == table.side[right]
        for place in np.lexsort((distance, within))[: self._limit].tolist():
            i, j = int(left[place]), int(right[place])
            names = table.paths[i].as_py(), table.paths[j].as_py()
            self._examples.append((kind, bool(within[place]), int(distance[place]), *names, i, j))
        kept = sorted(one for one in self._examples if one[0] == kind)[: self._limit]
        self._examples = [one for one in self._examples if one[0] != kind] + kept

    def found(self, names: list[str]) -> list[Found]:
        """Counts by kind and sides."""
        return [Found(kind, names[a], names[b], *numbers) for kind, a, b, *numbers in self._found]

    def named(self, names: list[str]) -> list[Example]:
        """The pairs to name."""
        side = self._table.side
        return [
            Example(kind, names[side[i]], path_a, names[side[j]], path_b, distance if kind == NEAR else None)
            for kind, _, distance, path_a, path_b, i, j in self._examples
        ]
