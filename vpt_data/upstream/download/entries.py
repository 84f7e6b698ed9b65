"""What there is to download: the `[download.NAME]` tables of manifests/sources.toml, or of a manifest of one's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vpt_data import store
from vpt_data.errors import UsageError, unknown_name
from vpt_data.upstream.catalog import Download, DownloadFile, Upstream, upstreams
from vpt_data.upstream.download.addresses import check_url

#: What this package itself keeps under a raw root.
PRIVATE = ".vpt-data"


class _OwnManifest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    download: dict[str, Download]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to have: where it goes, where it comes from, what is known of it.

    url      address, for people where it comes from the Hub or by hand
    hub      repository, `name` in it, `revision` (40 hex digits, or "" for the newest one at first use)
    others   places, relative to the raw root, where the same file may be instead
    """

    path: str
    url: str
    hub: str
    name: str
    revision: str
    manual: bool
    size: int | None
    sha256: str | None
    unpack: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A source to download: its files and its terms; `landing` is the page of what has to be fetched by hand."""

    name: str
    title: str
    license: str
    page: str
    landing: str
    files: tuple[Wanted, ...]


def groups(names: Sequence[str], manifest: Path | None = None) -> list[Group]:
    """The sources of these names (all where there are none), of the shipped manifest or of `manifest`.

    Raises UsageError for an unknown name, and for an entry that is no safe and whole description of a download.
    """
    known = upstreams().download if manifest is None else _own(manifest)
    where = "manifests/sources.toml" if manifest is None else str(manifest)
    for name in names:
        if name not in known:
            raise unknown_name("download", name, known)
    return [_group(where, name, known[name]) for name in dict.fromkeys(names or known)]


def _own(manifest: Path) -> dict[str, Download]:
    try:
        text = manifest.read_text(encoding="utf-8")
        return msgspec.convert(tomllib.loads(text), _OwnManifest).download
    except OSError as error:
        raise UsageError(f"{manifest}: cannot be read ({error.strerror}); give a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{manifest}: {error}; see docs/download.md for what a manifest may hold.") from error


def _group(where: str, name: str, given: Download) -> Group:
    at = f"{where}: download {name}"
    source = upstreams().source.get(name)
    license_ = given.license or _of(source, "license")
    if not license_:
        raise UsageError(f"{at} has no licence; write license = an SPDX identifier or LicenseRef-...")
    if sum(map(bool, (given.base, given.hub, given.manual))) != 1:
        raise UsageError(f"{at} needs exactly one of base, hub and manual.")
    if given.revision and not (given.hub and re.fullmatch(r"[0-9a-f]{40}", given.revision)):
        raise UsageError(f"{at} has revision {given.revision!r}; expected the 40 hex digits of a commit, and hub.")
    return Group(
        name=name,
        title=given.title or _of(source, "title") or name,
        license=license_,
        page=given.page or _of(source, "homepage") or given.manual,
        landing=given.manual,
        files=tuple(_wanted(at, given, file) for file in given.files),
    )


def _of(source: Upstream | None, key: str) -> str:
    return "" if source is None else str(getattr(source, key))


def _wanted(at: str, given: Download, file: DownloadFile) -> Wanted:
    for path in (file.path, *file.instead, *([file.unpack] if file.unpack else [])):
        check_path(at, path)
    if file.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise UsageError(f"{at}: sha256 {file.sha256!r} of {file.path} is not 64 hex digits.")
    if not given.manual and not file.name:
        raise UsageError(f"{at}: {file.path} needs a name to be fetched by.")
    if given.hub:
        check_path(at, file.name)
        url = f"https://huggingface.co/datasets/{given.hub}/blob/{given.revision or 'main'}/{file.name}"
    else:
        url = given.manual or f"{given.base}{file.name}"
        check_url(url)
    return Wanted(
        path=file.path,
        url=url,
        hub=given.hub,
        name=file.name,
        revision=given.revision,
        manual=bool(given.manual),
        size=file.size,
        sha256=file.sha256,
        unpack=file.unpack,
        others=tuple(_others(file)),
    )


def check_path(at: str, path: str) -> None:
    """UsageError unless `path` is a plain path below a raw root, and not where this package keeps its own files."""
    if not store.is_plain(path) or path.split("/")[0] == PRIVATE or not path.isprintable():
        raise UsageError(f"{at}: {path!r} is not a plain path below the raw root; write folder/name.")


def _others(file: DownloadFile) -> Iterator[str]:
    """`instead`, and every other place of sources.toml where a build would find the same file."""
    yield from file.instead
    for source in upstreams().source.values():
        for dataset in source.dataset.values():
            for places in dataset.places.values():
                if file.path in places:
                    yield from (name for place in places for name in (place, f"{place}.gz") if name != file.path)
