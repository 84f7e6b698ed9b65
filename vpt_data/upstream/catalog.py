"""What owners publish: upstreams, their files and terms, image folders and downloads.

`manifests/sources.toml` is the only list of them; this is its schema. For each data set of each source it names the
files by role ("rows" is the main one) and the places, relative to the raw root, where each may be located.
"""

from __future__ import annotations

import functools
import tomllib
from typing import Any

import msgspec

from vpt_data.errors import UsageError
from vpt_data.store import shipped
from vpt_data.upstream import packages


class Files(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One data set of an upstream: records it should have, places of its files by role."""

    rows: int | None
    places: dict[str, list[str]]
    optional: list[str] = []


class Citation(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the owners of an upstream want their work to be cited.

    key     the name of the entry in BibTeX
    arxiv   number of the preprint; `venue` is where it was published, with a number where it has one
    """

    key: str
    title: str
    authors: list[str]
    year: int
    arxiv: str = ""
    venue: str = ""

    def bibtex(self) -> str:
        """The entry."""
        fields = {
            "title": self.title,
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
            "howpublished": self.venue,
        }
        lines = [f"  {name:<13} = {{{value}}}" for name, value in fields.items() if value]
        return "\n".join([f"@misc{{{self.key},", ",\n".join(lines), "}"])


class Upstream(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What an upstream is, for people (`vpt-data sources`, the card) and for finding its files."""

    title: str
    homepage: str
    license: str
    get: str
    license_note: str = ""
    language: str = "en"
    citation: Citation | None = None
    dataset: dict[str, Files] = {}


class ImageSet(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Images under one canonical folder of a raw root: other places, terms, identity scheme.

    scheme   "coco", "vg", "oi", ...: the scheme of image identity; `number` = the digits at the end of the stem
    prefix   how file names begin in this folder, where images of the same scheme have names without it elsewhere
    """

    license: str
    attribution: str = ""
    places: list[str] = []
    scheme: str | None = None
    number: bool = False
    prefix: str = ""


class DownloadFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One file of a download.

    path     where it goes, relative to the raw root
    name     what its owner calls it: appended to `base`, or its path in the repository on the Hub
    size     bytes, and sha256 in hex: only where the owner or a public list of checksums states them
    unpack   the folder, relative to the raw root, that an archive is unpacked in; "" leaves it as it is
    instead  files or folders that make it unneeded where they exist (an archive that was unpacked by hand)
    """

    path: str
    name: str = ""
    size: int | None = None
    sha256: str | None = None
    unpack: str = ""
    instead: list[str] = []


class Download(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where `vpt-data download NAME` gets files from: exactly one of base, hub, manual.

    base      URL that the names of the files are appended to
    hub       data set on the Hugging Face Hub; `revision` pins a commit (40 hex digits)
    manual    page where a person has to ask for the files
    license   and title, page (of the terms): those of the source of the same name where they are left out
    """

    files: list[DownloadFile]
    base: str = ""
    hub: str = ""
    revision: str = ""
    manual: str = ""
    license: str = ""
    title: str = ""
    page: str = ""


class Upstreams(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole of manifests/sources.toml.

    archives   archive (`*` for the numbers of its parts) -> folder that the names in it are relative to
    """

    source: dict[str, Upstream]
    images: dict[str, ImageSet]
    archives: dict[str, str] = {}
    download: dict[str, Download] = {}


@functools.cache
def upstreams() -> Upstreams:
    """manifests/sources.toml, decoded strictly, and what other packages add to it.

    Raises UsageError for a package whose sources.toml does not decode, or has a name that is taken.
    """
    path = shipped("manifests") / "sources.toml"
    known = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Upstreams)
    for package, table in packages.manifests():
        try:
            more = msgspec.convert({"images": {}, **table}, Upstreams)
        except msgspec.ValidationError as error:
            raise UsageError(f"{package}: sources.toml: {error}; see docs/add-a-source.md.") from error
        known = _joined(known, more, package)
    return known


def _joined(known: Upstreams, more: Upstreams, package: str) -> Upstreams:
    tables: dict[str, Any] = {}
    for field in Upstreams.__struct_fields__:
        ours, theirs = getattr(known, field), getattr(more, field)
        for name in ours.keys() & theirs.keys():
            raise UsageError(f"{package}: sources.toml: {field} {name!r} is known already; choose another name.")
        tables[field] = {**ours, **theirs}
    return Upstreams(**tables)


@functools.cache
def image_set(folder: str) -> tuple[str, ImageSet] | None:
    """The canonical folder (of manifests/sources.toml) that a path's folder is in, and what is known of it."""
    fits = [(prefix, images) for prefix, images in upstreams().images.items() if f"{folder}/".startswith(prefix)]
    return max(fits, key=lambda fit: len(fit[0]), default=None)
