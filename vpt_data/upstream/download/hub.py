"""One file of a data set on the Hugging Face Hub, at one commit, through the Hub's own client.

The client brings tokens, mirrors (HF_ENDPOINT) and resumption. Its file is moved from a folder of ours to its place, so
no link into a cache is left behind; and it is hashed here, since the client compares sizes only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vpt_data import __version__
from vpt_data.errors import RawError
from vpt_data.upstream.download import sniff
from vpt_data.upstream.download.entries import Wanted


class FromHub(NamedTuple):
    """A file in the staging folder: bytes, sha256, the Hub's etag, the commit, whether the etag proves it."""

    file: Path
    size: int
    sha256: str
    etag: str
    revision: str
    proved: bool


def endpoint() -> str:
    """The server that is asked, and given the token if there is one; HF_ENDPOINT changes it."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def fetch(wanted: Wanted, revision: str, staging: Path) -> FromHub:
    """Have a file of the Hub under `staging`; `revision` is a commit or a branch.

    Raises RawError for whatever the Hub or the network does, and for a file that is not what the Hub or the manifest
    says it is.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    agent = {"library_name": "vpt-data", "library_version": __version__}
    with _one_sentence(wanted):
        url = hf_hub_url(wanted.hub, wanted.name, repo_type="dataset", revision=revision)
        about = get_hf_file_metadata(url, retry_on_errors=True, **agent)  # type: ignore[arg-type]
        commit, etag = about.commit_hash, about.etag
    if commit is None or etag is None:
        raise RawError(f"{wanted.path}: {url} says neither commit nor etag; check HF_ENDPOINT.")
    _fits(wanted, url, about.size)
    with _one_sentence(wanted):
        file = Path(
            hf_hub_download(wanted.hub, wanted.name, repo_type="dataset", revision=commit, local_dir=staging, **agent)  # type: ignore[call-overload]
        )
    size = file.stat().st_size
    sha256, blob = _hashes(file, size)
    proved = etag in {sha256, blob}
    found = sniff.wrong(file, wanted.path)
    if found is None and len(etag) in {40, 64} and not proved:
        found = f"bytes with sha256 {sha256}, the Hub says {etag}"
    if found is None and wanted.sha256 not in {None, sha256}:
        found = f"bytes with sha256 {sha256}, the manifest says {wanted.sha256}"
    if found is not None:
        file.unlink()
        raise RawError(f"{wanted.path}: {url} sent {found}; nothing was kept.")
    return FromHub(file, size, sha256, etag, commit, proved)


def _fits(wanted: Wanted, url: str, size: int | None) -> None:
    if None not in {size, wanted.size} and size != wanted.size:
        raise RawError(f"{wanted.path}: {url} has {size:,} bytes, the manifest says {wanted.size:,}.")


def _hashes(file: Path, size: int) -> tuple[str, str]:
    """sha256, which is the etag of a large file, and git's id, which is that of a small one."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with file.open("rb") as data:
        while chunk := data.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


@contextmanager
def _one_sentence(wanted: Wanted) -> Iterator[None]:
    import httpx2
    from huggingface_hub import errors

    where = f"{wanted.path}: {wanted.hub} on the Hub ({endpoint()})"
    try:
        yield
    except errors.GatedRepoError as error:
        raise RawError(f"{where} wants its terms accepted on its page; do that, then `hf auth login`.") from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise RawError(f"{where} cannot be reached; run the same command again later to continue.") from error
        raise RawError(f"{where} has no {wanted.name} at {wanted.revision or 'main'}; see its page.") from error
    except errors.RepositoryNotFoundError as error:
        raise RawError(f"{where} is not there, or not for this account; check `hf auth whoami`.") from error
    except errors.OfflineModeIsEnabled as error:
        raise RawError(f"{where} cannot be reached in offline mode; unset HF_HUB_OFFLINE.") from error
    except (errors.HfHubHTTPError, httpx2.HTTPError, errors.FileMetadataError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RawError(f"{where} failed ({reason}); run the same command again later to continue.") from error
    except OSError as error:
        reason = error.strerror or str(error) or os.strerror(error.errno or 0)
        raise RawError(
            f"{where}: the file did not come whole ({reason}); run the same command again to continue."
        ) from error
