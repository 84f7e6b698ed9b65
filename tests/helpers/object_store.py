"""An S3 server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow import fs

from vpt_data.store import RemotePath


@contextmanager
def served() -> Iterator[str]:
    """A server with a bucket `bucket`: the end of every URL that points to it."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    served = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    _, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        there = f"127.0.0.1:{port}"
        system = fs.S3FileSystem(endpoint_override=there, scheme="http", region="us-east-1", allow_bucket_creation=True)
        system.create_dir("bucket")
        yield f"?endpoint_override={there}&scheme=http&region=us-east-1"
    served.stop()


def objects(folder: RemotePath) -> dict[str, bytes]:
    """Every object below a prefix."""
    selector = fs.FileSelector(str(folder._path), recursive=True, allow_not_found=True)
    found = [info.path for info in folder._system.get_file_info(selector) if info.type == fs.FileType.File]
    return {
        path.removeprefix(f"{folder._path}/"): folder._system.open_input_stream(path).readall()
        for path in sorted(found)
    }
