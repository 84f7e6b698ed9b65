"""Images of a raw root: who they are, where they lie, how large they are, and their bytes.

An annotation names an image by its canonical path (`coco/train2017/000000000154.jpg`); manifests/sources.toml says in
which other folders the same file may lie. Sizes and boxes are those of the stored pixels, EXIF orientation ignored.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from vpt_data.pictures import Failure, Picture, check, header
from vpt_data.raw import ImageSet, upstreams
from vpt_data.schema import Reason

#: The extensions an OCR-VQA style download may have given to the same picture, in order of trust.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif")


def identity(paths: pa.Array) -> pa.Array:
    """Who each image is, whatever its path spells: string[N].

    `coco/val2014/COCO_val2014_000000310196.jpg` -> `coco:310196`, `gqa/images/17.jpg` -> `vg:17`,
    an image of no known folder -> `file:<path>`, so that all data sets that name a file agree on it.
    """
    known = paths.dictionary_encode()
    return pa.array([_identity(path) for path in known.dictionary.to_pylist()], pa.string()).take(known.indices)


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


T = TypeVar("T")


@functools.cache
def image_set(folder: str) -> tuple[str, ImageSet] | None:
    """The canonical folder (of manifests/sources.toml) that a path's folder lies in, and what is known of it."""
    fits = [(prefix, images) for prefix, images in upstreams().images.items() if f"{folder}/".startswith(prefix)]
    return max(fits, key=lambda fit: len(fit[0]), default=None)


class ImageRoot:
    """The images under one raw root; each folder is listed once, however many rows name it."""

    def __init__(self, root: Path) -> None:
        # Pillow's own limit warns at 90 million pixels and refuses at twice that; scanned pages are larger (DUDE:
        # 196 million), so every size is checked against ours instead, before anything is decoded.
        Image.MAX_IMAGE_PIXELS = None
        self._root = root
        self._listings: dict[str, frozenset[str]] = {}
        self._places: dict[str, list[str]] = {}

    def locate(self, path: str) -> Path | None:
        """The file behind a canonical path, or None where none of its places has it."""
        folder, _, name = path.rpartition("/")
        for place in self._folders(folder):
            names = self._listings[place]
            if name in names:
                return self._root / place / name
            stem, dot, _ = name.rpartition(".")
            for extension in _EXTENSIONS if dot else ():
                if stem + extension in names:
                    return self._root / place / (stem + extension)
        return None

    def size(self, path: str) -> tuple[int, int] | Failure:
        """Width and height of the stored pixels, from the header alone."""
        return self._read(path, lambda file: header(path, file))

    def load(self, path: str, width: int | None, height: int | None) -> Picture | Failure:
        """The image's bytes, checked against the size the annotation gives."""
        return self._read(path, lambda file: check(path, file.read_bytes(), width, height))

    def _read(self, path: str, how: Callable[[Path], T | Failure]) -> T | Failure:
        file = self.locate(path)
        if file is None:
            return Failure(Reason.MISSING_IMAGE, f"{path}: not under the raw root")
        try:
            return how(file)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            # Pillow names its own buffer in some messages; the path says more and stays the same.
            what = "cannot be decoded" if isinstance(error, UnidentifiedImageError) else error
            return Failure(Reason.BAD_IMAGE, f"{path}: {what}")

    def _folders(self, folder: str) -> list[str]:
        """Where images of a canonical folder may lie, the places that are there only; listed on first use."""
        if folder not in self._places:
            places = [folder]
            if (known := image_set(folder)) is not None:
                prefix, images = known
                places.extend(place + f"{folder}/".removeprefix(prefix) for place in images.places)
            for place in places:
                self._listings.setdefault(place, self._names(place))
            self._places[folder] = [place for place in places if self._listings[place]]
        return self._places[folder]

    def _names(self, place: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self._root / place))  # noqa: PTH208 - a set of names, not of Path objects
        except OSError:
            return frozenset()


def probe(images: pa.Array, root: ImageRoot) -> tuple[pa.Array, dict[str, Failure]]:
    """An `images` column of annotations with the sizes that the source did not say, read from the headers.

    Images that cannot be read keep a null size, and are named with the reason.
    """
    flat = images.flatten()
    paths, widths, heights = flat.flatten()
    need = pc.or_(pc.is_null(widths), pc.is_null(heights))
    if not pc.any(need).as_py():
        return images, {}
    sizes: dict[str, tuple[int, int]] = {}
    failures: dict[str, Failure] = {}
    for path in pc.unique(paths.filter(need)).to_pylist():
        found = root.size(path)
        if isinstance(found, Failure):
            failures[path] = found
        else:
            sizes[path] = found
    probed = [sizes.get(path) for path in paths.to_pylist()]
    width = pa.array([size and size[0] for size in probed], pa.int32())
    height = pa.array([size and size[1] for size in probed], pa.int32())
    fields = [paths, pc.if_else(need, width, widths), pc.if_else(need, height, heights)]
    struct = pa.StructArray.from_arrays(fields, fields=list(images.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(images), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), struct, type=images.type), failures
