"""The manifest: what a corpus is, in one JSON file that is written last. A folder without one is not a corpus."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import pyarrow as pa

from vpt_data import __version__, store
from vpt_data.errors import CorpusError, OutputError
from vpt_data.recipe import Recipe, decode
from vpt_data.selection.take_counts import TakeCounts
from vpt_data.store import DECODE_ERRORS, AnyPath
from vpt_data.upstream.download.lockfile import Accepted
from vpt_data.upstream.licenses import Policy


class Tool(msgspec.Struct, frozen=True):
    """What made the corpus; byte identity of shards holds for one pyarrow version."""

    name: str
    version: str
    pyarrow: str


class RecipeRecord(msgspec.Struct, frozen=True):
    """The recipe as it was used."""

    name: str
    sha256: str
    resolved: dict[str, Any]
    exclude_sha256: str | list[str] | None = None  # of the recipes whose images are kept out


class InputRecord(msgspec.Struct, frozen=True, order=True):
    """A raw file as it was read: stored bytes and their sha256."""

    file: str
    bytes: int
    sha256: str


class ShardRecord(msgspec.Struct, frozen=True):
    """One Parquet file, relative to the corpus."""

    file: str
    rows: int
    bytes: int
    sha256: str


class SplitRecord(msgspec.Struct):
    """The shards of one split."""

    rows: int
    shards: list[ShardRecord]


class ImageLicense(msgspec.Struct, frozen=True):
    """How many distinct images of a folder of manifests/sources.toml ("": own images) the rows show under a licence."""

    folder: str
    license: str | None
    images: int


class ImagesRecord(msgspec.Struct):
    """Distinct paths of images that rows show; how many of them are in the shards, and not under the raw root."""

    distinct: int
    embedded: int
    missing: int
    licenses: list[ImageLicense] = []


class Manifest(msgspec.Struct):
    """manifest.json."""

    schema_version: int
    tool: Tool
    recipe: RecipeRecord
    inputs: list[InputRecord]
    mode: str
    limited: bool
    components: list[TakeCounts]
    splits: dict[str, SplitRecord]
    images: ImagesRecord
    fingerprint: str
    missing: list[str] = []
    not_checked: list[str] = []
    license_policy: Policy = "any"
    verify_images: str = "markers"
    licenses_accepted: list[Accepted] = []
    image_problems: list[str] = []  # what is wrong with folders and archives in which images were looked for


NAME = "manifest.json"
#: The `source` of rows that were imported from a published file: no owner's file was read, and no build makes them.
IMPORTED: Final = "published"


def imported(recipe: Recipe) -> bool:
    """Whether the rows of a recipe were imported, and not built."""
    return any(take.source == IMPORTED for take in recipe.take.values())


def recipe_of(made: Manifest) -> Recipe:
    """The recipe of a corpus; UsageError where it is not one of this version."""
    takes = made.recipe.resolved.get("take", {}).values()
    if any(isinstance(take, dict) and take.get("source") == IMPORTED for take in takes):
        return msgspec.convert(made.recipe.resolved, Recipe)  # what a build asks of a recipe does not hold for it
    return decode(made.recipe.resolved, made.recipe.name)


def tool() -> Tool:
    """This version of the package."""
    return Tool("vpt-data", __version__, pa.__version__)


def write_text(path: AnyPath, text: str) -> None:
    """Write a small file in one step: it is there whole or not at all."""
    try:
        store.write(path, text.encode(), durable=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error


def dump(manifest: Manifest) -> str:
    """The manifest as indented JSON with a final newline."""
    return json.dumps(msgspec.to_builtins(manifest), indent=2, ensure_ascii=False) + "\n"


def write(manifest: Manifest, corpus: AnyPath) -> None:
    """Write manifest.json; call it when everything else is on disk."""
    write_text(corpus / NAME, dump(manifest))


def read(corpus: AnyPath) -> Manifest:
    """The manifest of a corpus folder, or one sentence on why this is none."""
    path = corpus / NAME
    if not corpus.is_dir():
        raise CorpusError(f"{corpus}: there is no such folder; give the output folder of `vpt-data build`.")
    if not path.is_file():
        raise CorpusError(
            f"{corpus}: no manifest.json, so this is no corpus, or its build has not finished; run the build again."
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except DECODE_ERRORS as error:
        raise CorpusError(f"{path}: not a manifest of this version ({error}); build the corpus again.") from error
