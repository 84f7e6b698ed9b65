"""Data sets on the Hugging Face Hub as files for pyarrow: read by range requests, at one commit, never written."""

from __future__ import annotations

import io
from typing import BinaryIO
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from vpt_data.errors import CorpusError, UsageError


def opened(text: str, rest: str) -> tuple[fs.FileSystem, str, str]:
    """File system, scheme and path of a data set on the Hub, or a folder in it, at the commit its revision is now.

    text, rest   the URL, for errors, and what stands behind its `hf://`

    Whoever pushes to the data set meanwhile changes nothing for those who read it.
    """
    import httpx2
    from huggingface_hub import HfApi, HfFileSystem, constants

    kind, *parts = rest.strip("/").split("/")
    name, _, revision = "/".join(parts[:2]).partition("@")
    if kind != "datasets" or len(parts) < 2:
        raise UsageError(f"{text}: expected hf://datasets/ORG/NAME, or hf://datasets/ORG/NAME@REVISION.")
    try:
        commit = HfApi(constants.ENDPOINT).dataset_info(name, revision=unquote(revision) or None).sha
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise CorpusError(
            f"{text}: cannot be opened on {constants.ENDPOINT} ({_first_line(error)}); "
            "check the name, or log in with `hf auth login`."
        ) from error
    # A file system of our own: an instance that others share may remember another server's answers.
    system = HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)
    path = "/".join([kind, f"{name}@{commit}", *parts[2:]])
    return fs.PyFileSystem(_HubFiles(system)), "hf", path


class _HubFiles(fs.FSSpecHandler):  # type: ignore[misc]
    """The Hub's file system for pyarrow: exactly the bytes that are asked for, and no writing."""

    def open_input_file(self, path: str) -> pa.PythonFile:
        """A file whose reads are range requests; pyarrow itself joins what is close together."""
        return pa.PythonFile(_HubFile(self.fs.open(path, "rb", cache_type="none")), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """A small file."""
        return self.open_input_file(path)

    def open_output_stream(self, path: str, metadata: object) -> pa.PythonFile:
        """Refused."""
        raise UsageError(f"hf://{path}: a data set on the Hub is only read here; write to a folder.")

    def delete_file(self, path: str) -> None:
        """Refused."""
        self.open_output_stream(path, None)

    def delete_dir(self, path: str) -> None:
        """Refused."""
        self.open_output_stream(path, None)


class _HubFile(io.RawIOBase):
    """A file on the Hub; what the network does is an OSError, as readers of files expect."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from here, all that are left for -1."""
        import httpx2

        try:
            return self._file.read(size)
        except httpx2.HTTPError as error:
            raise OSError(f"the Hub answered: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What the client of the Hub says in several lines, in short."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
