"""The test Hub itself: the real clients do with it what they do with the real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import accounts
from helpers.hub.client import environment, python_json
from helpers.hub.server import HubServer
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

LARGE = bytes(range(256)) * 40
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client itself
ENTRY_MISSING = ("RemoteEntryNotFoundError", 404)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(page=3) as running:
        yield running
        assert running.broken == []


@pytest.fixture(autouse=True)
def plain_lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


class Client(HfApi):
    """The real client for one data set."""

    def __init__(self, server: HubServer, token: str | bool = accounts.WRITE) -> None:
        super().__init__(server.url, token)

    def made(self) -> Client:
        self.create_repo("org/name", repo_type="dataset")
        return self

    def commit(self, files: dict[str, bytes], *deleted: str, **more: Any) -> CommitInfo:
        added = [CommitOperationAdd(path, data) for path, data in files.items()]
        operations = [*added, *map(CommitOperationDelete, deleted)]
        return self.create_commit("org/name", operations, commit_message="a commit", repo_type="dataset", **more)


def refused(call: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[str, int] | None:
    """The client's exception and the server's status."""
    try:
        call(*arguments, **more)
    except HfHubHTTPError as error:
        return type(error).__name__, error.response.status_code
    return None


def test_a_repository_is_made_once(server: HubServer) -> None:
    client = Client(server)
    address = client.create_repo("org/name", repo_type="dataset", exist_ok=True)
    assert str(address) == f"{server.url}/datasets/org/name"
    assert client.create_repo("org/name", repo_type="dataset", exist_ok=True) == address
    assert refused(client.made) == ("HfHubHTTPError", 409)
    assert client.whoami()["orgs"][0]["name"] == "org"
    assert list(server.contents("org/name")) == [".gitattributes"]
    client.update_repo_settings("org/name", private=True, gated="auto", repo_type="dataset")
    assert (server.repository("org/name").private, server.repository("org/name").gated) == (True, "auto")


def test_a_commit_is_all_or_nothing(server: HubServer) -> None:
    client = Client(server).made()
    files = {"README.md": b"---\nlicense: mit\n---\n", "data/a.parquet": LARGE, "data/deep/b.txt": b"b"}
    made = client.commit(files)
    assert client.commit(files).oid == made.oid, "the client leaves out what is there and makes no empty commit"
    assert [seen.received for seen in server.faults.log if seen.method == "PUT"] == [len(LARGE)]
    oldest = server.repository("org/name").history()[-1].oid
    assert refused(client.commit, {"c.txt": b"c"}, parent_commit=oldest) == ("HfHubHTTPError", 412)
    assert refused(client.commit, {"c.txt": b"c"}, "nothing.txt") == ENTRY_MISSING
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        client.commit({"README.md": b"---\n- a\n---\n"})
    assert server.repository("org/name").at("main").oid == made.oid
    last = client.commit({}, "data/deep/", parent_commit=made.oid)
    info = client.dataset_info("org/name", files_metadata=True)
    assert (info.sha, info.card_data["license"] if info.card_data else None) == (last.oid, "mit")
    assert info.siblings is not None and [one.rfilename for one in info.siblings] == list(server.contents("org/name"))
    assert len(list(client.list_repo_commits("org/name", repo_type="dataset"))) == 3


def test_lists_of_files_come_in_pages(server: HubServer) -> None:
    client = Client(server).made()
    old = client.commit({"data/a.parquet": LARGE, "data/deep/b.txt": b"b", "z.txt": b""})
    client.commit({}, "data/")

    def tree(folder: str | None = None, **more: Any) -> list[str]:
        found = client.list_repo_tree("org/name", folder, repo_type="dataset", revision=old.oid, **more)
        return [one.path for one in found]

    assert tree() == [".gitattributes", "data", "z.txt"]
    everything = [".gitattributes", "data", "data/a.parquet", "data/deep", "data/deep/b.txt", "z.txt"]
    assert tree(recursive=True) == tree(recursive=True, expand=True) == everything
    assert tree("data/deep") == ["data/deep/b.txt"]
    assert refused(tree, "none") == ENTRY_MISSING
    paths = ["data", "data/a.parquet", "none"]
    folder, file = client.get_paths_info("org/name", paths, repo_type="dataset", revision=old.oid)
    assert isinstance(file, RepoFile) and file.lfs is not None
    assert (folder.path, file.size, file.lfs.sha256) == ("data", len(LARGE), file.lfs["sha256"])


def test_branches_and_tags(server: HubServer) -> None:
    client, kind = Client(server).made(), {"repo_type": "dataset"}
    first = client.commit({"a.txt": b"1"})
    client.create_tag("org/name", tag="v1", **kind)
    assert refused(client.create_tag, "org/name", tag="v1", **kind) == ("HfHubHTTPError", 409)
    client.create_tag("org/name", tag="v1", exist_ok=True, **kind)
    client.create_branch("org/name", branch="side", **kind)
    client.commit({"a.txt": b"2"}, revision="side")
    client.commit({"a.txt": b"3"})
    refs = client.list_repo_refs("org/name", **kind)
    assert [one.name for one in refs.branches] == ["main", "side"]
    assert [(one.name, one.target_commit) for one in refs.tags] == [("v1", first.oid)]
    assert [server.contents("org/name", one)["a.txt"] for one in ("v1", "side", "main")] == [b"1", b"2", b"3"]
    client.delete_tag("org/name", tag="v1", **kind)
    client.delete_branch("org/name", branch="side", **kind)
    assert refused(client.dataset_info, "org/name", revision="v1") == ("RevisionNotFoundError", 404)
    assert refused(client.commit, {"a.txt": b"4"}, revision="side") == ("RevisionNotFoundError", 404)


def test_a_pull_request_is_merged_or_not(server: HubServer) -> None:
    client, kind = Client(server).made(), {"repo_type": "dataset"}
    client.commit({"a.txt": b"1", "gone.txt": b""})
    request = client.commit({"b.txt": b"2"}, "gone.txt", create_pr=True, commit_description="why")
    client.commit({"c.txt": b"3"}, revision=request.pr_revision)
    client.commit({"d.txt": b"4"})
    (listed,) = client.get_repo_discussions("org/name", discussion_type="pull_request", **kind)
    assert (listed.num, listed.title, listed.status, listed.author) == (1, "a commit", "open", "me")
    details = client.get_discussion_details("org/name", 1, **kind)
    assert [event.type for event in details.events] == ["comment", "commit", "commit"]
    assert (details.events[0].content, details.conflicting_files) == ("why", [])  # type: ignore[attr-defined]
    assert "b.txt" in server.contents("org/name", "refs/pr/1") and "b.txt" not in server.contents("org/name")
    client.merge_pull_request("org/name", 1, **kind)
    contents = server.contents("org/name")
    assert [name for name in contents if name.endswith(".txt")] == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert client.get_discussion_details("org/name", 1, **kind).status == "merged"
    client.commit({"a.txt": b"theirs"}, create_pr=True)
    client.commit({"a.txt": b"ours"})
    assert client.get_discussion_details("org/name", 2, **kind).conflicting_files == ["a.txt"]
    assert refused(client.merge_pull_request, "org/name", 2, **kind) == ("HfHubHTTPError", 409)
    client.change_discussion_status("org/name", 2, "closed", **kind)
    client.comment_discussion("org/name", 2, "no", **kind)
    assert client.create_pull_request("org/name", title="an empty one", **kind).status == "draft"
    statuses = [one.status for one in client.get_repo_discussions("org/name", **kind)]
    assert statuses == ["draft", "closed", "merged"]


FINE = None
ABSENT, UNKNOWN = ("RepositoryNotFoundError", 404), ("RepositoryNotFoundError", 401)
FORBIDDEN, EXPIRED = ("HfHubHTTPError", 403), ("HfHubHTTPError", 401)
GATED = ("GatedRepoError", 403)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (accounts.WRITE, [FINE, ABSENT, FINE, GATED, FINE, FORBIDDEN, FINE, GATED]),
        (accounts.READ, [FINE, ABSENT, FINE, GATED, FORBIDDEN, FORBIDDEN, FORBIDDEN, GATED]),
        (accounts.STRANGER, [ABSENT, ABSENT, FINE, GATED, FORBIDDEN, FORBIDDEN, ABSENT, GATED]),
        (accounts.EXPIRED, [EXPIRED] * 8),
        (False, [UNKNOWN, UNKNOWN, FINE, ("GatedRepoError", 401), *[EXPIRED] * 4]),
    ],
)
def test_who_may_do_what(server: HubServer, tmp_path: Path, token: str | bool, expected: list[Any]) -> None:
    server.hub.create("org/name", private=True)
    server.hub.create("other/gated").gated = "auto"
    server.commit("other/gated", {"a.txt": b"1"})
    client = Client(server, token)
    kind: dict[str, Any] = {"repo_type": "dataset"}
    added = [CommitOperationAdd("a.txt", b"2")]
    assert expected == [
        refused(client.dataset_info, "org/name"),
        refused(client.dataset_info, "org/none"),
        refused(client.dataset_info, "other/gated"),
        refused(client.hf_hub_download, "other/gated", "a.txt", cache_dir=tmp_path, **kind),
        refused(client.create_repo, "org/new", **kind),
        refused(client.create_repo, "other/new", **kind),
        refused(client.commit, {"a.txt": b"1"}),
        refused(client.create_commit, "other/gated", added, commit_message="a", **kind),
    ]


def test_a_gated_repository_opens_for_those_who_were_let_in(server: HubServer) -> None:
    server.hub.create("other/gated").gated = "auto"
    client = Client(server)
    assert refused(client.auth_check, "other/gated", repo_type="dataset") == GATED
    server.repository("other/gated").members.add("me")
    assert refused(client.auth_check, "other/gated", repo_type="dataset") is None
    assert refused(client.auth_check, "other/gated", repo_type="dataset", write=True) == FORBIDDEN


def test_files_at_every_revision(server: HubServer, tmp_path: Path) -> None:
    server.hub.create("org/name")
    old = server.commit("org/name", {"data/a.parquet": LARGE, "a.txt": b"old"})
    server.commit("org/name", {"data/a.parquet": b"new", "a.txt": None})
    client, kind = Client(server, token=False), {"repo_type": "dataset", "cache_dir": tmp_path}
    place = Path(client.snapshot_download("org/name", revision=old.oid, **kind))
    assert (place / "data/a.parquet").read_bytes() == LARGE and (place / "a.txt").read_text() == "old"
    assert Path(client.hf_hub_download("org/name", "data/a.parquet", **kind)).read_text() == "new"
    assert refused(client.hf_hub_download, "org/name", "a.txt", **kind) == ENTRY_MISSING
    system = HfFileSystem(endpoint=server.url, token=False, skip_instance_cache=True)
    with system.open(f"datasets/org/name@{old.oid}/data/a.parquet", cache_type="none") as file:
        file.seek(513)
        assert file.read(3) == b"\1\2\3"
    assert server.faults.log[-1].status == 206 and server.faults.log[-1].sent == 3
    assert system.find("datasets/org/name") == [f"datasets/org/name/{path}" for path in server.contents("org/name")]


def test_large_files_in_parts() -> None:
    with HubServer(part_size=3000) as server:
        Client(server).made().commit({"a.parquet": LARGE, "b.parquet": b"b"})
        assert server.contents("org/name")["a.parquet"] == LARGE
        parts = [seen.received for seen in server.faults.log if seen.method == "PUT"]
        assert sorted(parts) == [1, 1240, 3000, 3000, 3000]


# Clients in processes of their own -------------------------------------------------------------------------


def test_datasets_pushes_and_loads(server: HubServer, tmp_path: Path) -> None:
    program = """
import datasets, json
rows = datasets.Dataset.from_dict({"id": [str(n) for n in range(20)]})
old = rows.push_to_hub("org/name", num_shards=2).oid
rows.select(range(5)).push_to_hub("org/name")
counts = []
for more in ({}, {"revision": old}):
    for streaming in (False, True):
        counts.append(len(list(datasets.load_dataset("org/name", split="train", streaming=streaming, **more))))
print(json.dumps(counts))
"""
    assert python_json(program, environment(server.url, tmp_path)) == [5, 5, 20, 20]
    assert [path for path in server.contents("org/name") if "data/" in path] == ["data/train-00000-of-00001.parquet"]


def test_the_hf_command(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "folder/data").mkdir(parents=True)
    (tmp_path / "folder/data/a.parquet").write_bytes(LARGE)
    hf, env = Path(sys.executable).with_name("hf"), environment(server.url, tmp_path / "home")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run([hf, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "me" in run("auth", "whoami")
    for _ in range(2):
        run("upload", "org/name", tmp_path / "folder", "--repo-type", "dataset")
    run("download", "org/name", "--repo-type", "dataset", "--local-dir", tmp_path / "back")
    assert (tmp_path / "back/data/a.parquet").read_bytes() == LARGE
    assert len(server.repository("org/name").history()) == 2, "the second upload makes no commit"


def test_xet_keeps_large_files_by_itself(tmp_path: Path) -> None:
    """hf_xet has a store in a folder, for its own tests; no document promises it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "a.parquet").write_bytes(LARGE * 9)
    push = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("org/name", repo_type="dataset")
api.upload_file(path_or_fileobj=sys.argv[1], path_in_repo="a.parquet", repo_id="org/name", repo_type="dataset")
"""
    pull = """
from huggingface_hub import hf_hub_download
from pathlib import Path
print(len(Path(hf_hub_download("org/name", "a.parquet", repo_type="dataset")).read_bytes()))
"""
    with HubServer(xet=tmp_path / "store") as server:
        env = environment(server.url, tmp_path / "home", HF_HUB_DISABLE_XET="0")
        command = [sys.executable, "-c", push, str(tmp_path / "a.parquet")]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        if done.returncode != 0 and "local:" in done.stderr:
            pytest.skip("this hf_xet does not know local:// as a store")
        assert done.returncode == 0, done.stderr
        assert server.repository("org/name").objects == {}, "no byte of it came to the server"
        server.know(tmp_path / "a.parquet")
        assert python_json(pull, env) == len(LARGE) * 9
