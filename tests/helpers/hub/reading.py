"""Routes that change nothing: who asks, what is in a repository, the bytes of a file."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlencode

import yaml
from helpers.hub.access import readable, user, with_content, writable
from helpers.hub.answers import Answer, Asked, Refused, as_json
from helpers.hub.repositories import Blob, Commit, Hub, Repository


def whoami(hub: Hub, asked: Asked) -> Answer:
    """The user of the token."""
    who = user(asked)
    assert asked.token is not None
    organizations = [{"type": "org", "name": name, "roleInOrg": "admin"} for name in who.organizations]
    access = {"displayName": "of the tests", "role": asked.token.role}
    return as_json(
        {"type": "user", "name": who.name, "fullname": who.name, "orgs": organizations}
        | {"auth": {"type": "access_token", "accessToken": access}}
    )


def info(hub: Hub, asked: Asked, plural: str, name: str, revision: str = "main") -> Answer:
    """A repository at a revision."""
    found = readable(hub, asked, plural, name)
    commit = found.at(unquote(revision))
    siblings = [
        {"rfilename": path} | (_sizes(blob) if asked.flag("blobs") else {})
        for path, blob in sorted(commit.files.items())
    ]
    return as_json(
        {
            "_id": found.name, "id": found.name, "author": found.namespace, "sha": commit.oid, "siblings": siblings,
            "private": found.private, "gated": found.gated, "disabled": False, "tags": [], "downloads": 0, "likes": 0,
            "createdAt": found.history(commit.oid)[-1].date, "lastModified": commit.date, "cardData": _card(commit),
        }
    )  # fmt: skip


def _sizes(blob: Blob) -> dict[str, Any]:
    return {"size": blob.size, "blobId": blob.oid, "lfs": _lfs(blob)}


def _lfs(blob: Blob) -> dict[str, Any] | None:
    if blob.sha256 is None:
        return None
    return {"oid": blob.sha256, "sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}


def _card(commit: Commit) -> dict[str, Any] | None:
    blob = commit.files.get("README.md")
    front = re.match(rb"---\n(.*?)\n---", blob.data or b"", re.DOTALL) if blob else None
    try:
        return yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return None


def authorization(hub: Hub, asked: Asked, plural: str, name: str, write: str = "") -> Answer:
    """Whether the asking user may read the files, or write."""
    (writable if write else with_content)(hub, asked, plural, name)
    return as_json({})


def tree(hub: Hub, asked: Asked, plural: str, name: str, revision: str, folder: str = "", *, page: int) -> Answer:
    """What is in a folder, `page` entries at a time."""
    found = readable(hub, asked, plural, name)
    commit = found.at(unquote(revision))
    folder = unquote(folder).strip("/")
    start = f"{folder}/" if folder else ""
    entries = [_entry(found, commit, path, asked.flag("expand")) for path in (*commit.folders(), *commit.files)]
    inside = [entry for entry in entries if entry["path"].startswith(start)]
    if folder and not inside:
        raise Refused(404, f"{folder} does not exist on {unquote(revision)}", "EntryNotFound")
    if not asked.flag("recursive"):
        inside = [entry for entry in inside if "/" not in entry["path"].removeprefix(start)]
    inside.sort(key=lambda entry: entry["path"])
    return _page(asked, inside, page)


def _page(asked: Asked, items: list[dict[str, Any]], count: int) -> Answer:
    first = int(asked.parameter("cursor", "0"))
    answer = as_json(items[first : first + count])
    if first + count < len(items):
        query = {name: values[-1] for name, values in asked.query.items()} | {"cursor": str(first + count)}
        answer.headers["Link"] = f'<{asked.url}{asked.path}?{urlencode(query)}>; rel="next"'
    return answer


def _entry(found: Repository, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    blob = commit.files.get(path)
    entry: dict[str, Any]
    if blob is None:
        entry = {"type": "directory", "path": path, "size": 0, "oid": commit.folders()[path]}
    else:
        entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
        if blob.sha256 is not None:
            entry["lfs"] = _lfs(blob)
    if expand:
        entry["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return entry


def paths_info(hub: Hub, asked: Asked, plural: str, name: str, revision: str) -> Answer:
    """Some files and folders; those that are not there are left out."""
    found = readable(hub, asked, plural, name)
    commit = found.at(unquote(revision))
    fields = asked.fields()
    there = commit.files.keys() | commit.folders().keys()
    expand = str(fields.get("expand")).lower().strip("[']") == "true"
    paths = [path for path in fields["paths"] if path in there]
    return as_json([_entry(found, commit, path, expand) for path in paths])


def refs(hub: Hub, asked: Asked, plural: str, name: str) -> Answer:
    """Branches, tags and pull requests."""
    found = readable(hub, asked, plural, name)

    def below(start: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(start), "ref": ref, "targetCommit": oid}
            for ref, oid in sorted(found.refs.items())
            if ref.startswith(start)
        ]

    listed = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": []}
    if asked.flag("include_prs"):
        listed["pullRequests"] = below("refs/pr/")
    return as_json(listed)


def commits(hub: Hub, asked: Asked, plural: str, name: str, revision: str) -> Answer:
    """The history of a revision."""
    found = readable(hub, asked, plural, name)
    items = [
        {"id": one.oid, "title": one.title, "message": one.message, "date": one.date, "authors": [{"user": one.author}]}
        for one in found.history(unquote(revision))
    ]
    return _page(asked, items, 1000)


def resolve(hub: Hub, asked: Asked, plural: str, name: str, revision: str, path: str) -> Answer:
    """A file, or the range of it that is asked for."""
    found = with_content(hub, asked, plural, name)
    commit, path = found.at(unquote(revision)), unquote(path)
    blob = commit.files.get(path)
    if blob is None:
        missing = Refused(404, "Entry not found", "EntryNotFound")
        missing.answer.headers["X-Repo-Commit"] = commit.oid
        raise missing
    headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if blob.sha256 is not None:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if (xet := hub.xet_ids.get(blob.sha256)) is not None:
            route = f"{asked.url}/api/{plural}/{name}/xet-read-token/{quote(commit.oid)}"
            headers |= {"X-Xet-Hash": xet, "Link": f'<{route}>; rel="xet-auth"'}
    if asked.method == "HEAD":
        return Answer(b"", 200, headers, blob.size)
    return _ranged(asked, found.bytes_of(blob), headers)


def _ranged(asked: Asked, data: bytes, headers: dict[str, str]) -> Answer:
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range") or "")
    if wanted is None:
        return Answer(data, 200, headers)
    start, end = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
    if start >= len(data):
        return Answer(b"", 416, headers | {"Content-Range": f"bytes */{len(data)}"})
    return Answer(data[start:end], 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
