"""Which image a path means, whatever its spelling: the identity that sharing, exclusion and duplicates go by."""

from __future__ import annotations

import functools

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.errors import RawError
from vpt_data.store import DECODE_ERRORS, AnyPath
from vpt_data.upstream.catalog import image_set, upstreams
from vpt_data.upstream.rawfile import RawFile, content, in_memory


def identities(paths: pa.Array, root: AnyPath | None = None) -> pa.Array:
    """Who each image is, whatever its path spells: string[N].

    `coco/val2014/COCO_val2014_000000310196.jpg` -> `coco:310196`, `gqa/images/17.jpg` -> `vg:17`,
    an image of no known folder -> `file:<path>`, so that all data sets that name a file agree on it.
    With a raw root that has Visual Genome's image_data.json, those of its images that are COCO's are `coco:`;
    raises RawError if that file is not what it should be.
    """
    known = paths.dictionary_encode()
    named = [_identity(path) for path in known.dictionary.to_pylist()]
    if root is not None and any(name.startswith("vg:") for name in named):
        coco = coco_numbers(root)
        named = [coco.get(name, name) for name in named]
    return pa.array(named, pa.string()).take(known.indices)


def _identity(path: str) -> str:
    folder, _, name = path.rpartition("/")
    found = image_set(folder)
    stem = name.rpartition(".")[0] or name
    if found is None or found[1].scheme is None:
        return f"file:{path}"
    if not found[1].number:
        return f"{found[1].scheme}:{stem}"
    number = stem.rpartition("_")[2]
    return f"{found[1].scheme}:{number.lstrip('0') or '0'}" if number.isascii() and number.isdigit() else f"file:{path}"


def schemes(named: pa.Array) -> set[str]:
    """The schemes that occur among identities: "coco", "vg", ..., "file".

    >>> sorted(schemes(pa.array(["coco:7", "vg:8", "coco:9"])))
    ['coco', 'vg']
    """
    found = pc.unique(pc.replace_substring_regex(pc.unique(named.drop_null()), ":.*", ""))
    return set(found.to_pylist())


class _Genome(msgspec.Struct):
    """A record of Visual Genome's image_data.json, as far as it says which image it is."""

    image_id: int
    coco_id: int | None = None


def coco_numbers(root: AnyPath) -> dict[str, str]:
    """`vg:` identities of a raw root that are COCO images: {"vg:17": "coco:310196"}; empty without image_data.json."""
    file = image_data(root)
    if file is None:
        return {}
    stat = file.path.stat()
    return _coco_numbers(file.path, file.name, stat.st_size, stat.st_mtime_ns)


def image_data(root: AnyPath) -> RawFile | None:
    """Visual Genome's list of images, which is an input of every corpus that shows them; None where it is not there."""
    places = upstreams().source["visual_genome"].dataset["images"].places["image_data"]
    found = [name for place in places for name in (place, f"{place}.gz") if (root / name).is_file()]
    return RawFile(root / found[0], found[0].removesuffix(".gz")) if found else None


@functools.lru_cache(maxsize=4)
def _coco_numbers(file: AnyPath, name: str, size: int, changed: int) -> dict[str, str]:
    del size, changed  # they are part of what is remembered: a file that was replaced is read again
    raw = RawFile(file, name)
    try:
        with in_memory(raw):
            records = msgspec.json.decode(content(raw), type=list[_Genome])
    except DECODE_ERRORS as error:
        expected = "expected Visual Genome's list of objects with image_id and coco_id"
        raise RawError(f"{name}: not image_data.json ({error}); {expected}: fetch the file again.") from error
    return {f"vg:{known.image_id}": f"coco:{known.coco_id}" for known in records if known.coco_id is not None}
