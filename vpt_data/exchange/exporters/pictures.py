"""Where the images of exported rows are, and what they are called there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import posixpath
from typing import Any, Final, Literal

from PIL import Image

from vpt_data import store
from vpt_data.errors import CorpusError, RawError, UsageError
from vpt_data.exchange.exporters.exporter import Row, Unsayable
from vpt_data.images import views
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.store import AnyPath

#: `path`: images stay where they are, and are called by their path; `copy`: their files are written beside the records.
Images = Literal["path", "copy"]
FOLDER: Final = "images"
CROPS: Final = "crops"
#: What files of the formats begin with that browsers and services read.
_MEDIA: Final = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif"}


class Files:
    """The pictures of one export.

    out     the output folder; images below FOLDER, crops below CROPS
    prefix  what stands before the path of an image that stays where it is
    root    the raw root, for images that are not in the shards

    What is written is called by its path, and for a crop by its box as well: a file that is there is not written again.
    """

    def __init__(self, out: AnyPath, images: Images, prefix: str, root: ImageRoot | None) -> None:
        self._out, self._images, self._prefix, self._root = out, images, prefix, root
        self._written: set[str] = set()
        self._last: tuple[tuple[str, int], Image.Image] | None = None

    @property
    def options(self) -> dict[str, str]:
        """What decides which files there are and how they are called."""
        return {"images": self._images, "prefix": self._prefix}

    def path(self, row: Row, which: int) -> str:
        """The path of a whole image."""
        stored = str(row["images"][which]["path"])
        if self._images == "copy":
            return self._file(f"{FOLDER}/{_safe(stored)}", lambda: self._bytes(row, which))
        given = _given(row)
        return given[which] if given and not self._prefix else posixpath.join(self._prefix, stored)

    def file(self, row: Row, number: int) -> str:
        """The path of a file with what a view shows."""
        view = row["views"][number]
        if view["box"] is None:
            return self.path(row, view["image"])
        # With its suffix: 1.jpg and 1.png are two images. Apart from the images, one of which could have this name.
        path = _safe(str(row["images"][view["image"]]["path"]))
        name = f"{CROPS}/{path}_{'_'.join(map(str, view['box']))}.png"
        return self._file(name, lambda: self._png(row, number))

    def data(self, row: Row, number: int) -> str:
        """What a view shows as a data URI: the bytes of the image's file, or a PNG of the crop."""
        view = row["views"][number]
        content, media = b"", ""
        if view["box"] is None:
            content = self._bytes(row, view["image"])
            media = next((known for magic, known in _MEDIA.items() if content.startswith(magic)), "")
        if not media:
            content, media = self._png(row, number), "image/png"
        return f"data:{media};base64,{base64.b64encode(content).decode()}"

    def _file(self, name: str, content: Any) -> str:
        if name not in self._written:
            self._written.add(name)
            path = self._out / name
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                store.write(path, content())
        return name

    def _bytes(self, row: Row, which: int) -> bytes:
        entry = row["images"][which]
        if entry.get("bytes") is not None:
            return bytes(entry["bytes"])
        found = self._needed_root(row).read(entry["path"])
        if isinstance(found, Failure):
            raise Unsayable(f"an image cannot be read ({found.reason})")
        return found

    def _png(self, row: Row, number: int) -> bytes:
        view = row["views"][number]
        use = (row["id"], view["image"])
        try:
            if self._last is None or self._last[0] != use:
                self._last = use, views.image(row, view["image"], self._root)
            cut = views.pixels(self._last[1], None if view["box"] is None else tuple(view["box"]))
        except (CorpusError, RawError) as error:
            raise Unsayable(
                "an image is not there, cannot be decoded, or has not the size that the row says"
            ) from error
        out = io.BytesIO()
        cut.save(out, "PNG")
        return out.getvalue()

    def _needed_root(self, row: Row) -> ImageRoot:
        if self._root is None:
            raise UsageError(f"{row['id']}: its images are not in the shards; give the raw root with them (--raw).")
        return self._root


def _given(row: Row) -> list[str] | None:
    """The paths of an imported row as its file had them."""
    meta = json.loads(row["meta"]) if row["source"] == "published" and row["meta"] else {}
    found: list[str] | None = meta.get("paths")
    return found


def _safe(path: str) -> str:
    """A path below the folder of images; one that leads out of it is called by its hash."""
    if store.is_plain(path):
        return path
    return hashlib.sha256(path.encode()).hexdigest()[:16] + posixpath.splitext(path)[1].replace("/", "")
