"""Routes that make and change repositories: create, settings, branches, tags, uploads, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import yaml
from helpers.hub.access import user, writable
from helpers.hub.answers import Answer, Asked, Refused, as_json
from helpers.hub.discussions import opened
from helpers.hub.repositories import Blob, Hub, Repository


def create(hub: Hub, asked: Asked) -> Answer:
    """A new repository."""
    who, fields = user(asked), asked.fields()
    assert asked.token is not None
    namespace = fields.get("organization") or who.name
    name, kind = f"{namespace}/{fields['name']}", fields.get("type") or "model"
    if asked.token.role != "write":
        raise Refused(403, "You don't have the rights to create a repository with this token.")
    if not who.owns(namespace):
        raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}".')
    url = f"{asked.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if (kind, name) in hub.repositories:
        raise Refused(409, f"You already created this {kind} repo", url=url)
    hub.create(name, kind, fields.get("visibility") == "private" or bool(fields.get("private")), who.name)
    return as_json({"url": url, "name": name, "id": name})


def settings(hub: Hub, asked: Asked, plural: str, name: str) -> Answer:
    """Visibility and gating."""
    found, fields = writable(hub, asked, plural, name), asked.fields()
    if "visibility" in fields:
        found.private = fields["visibility"] == "private"
    found.gated = fields.get("gated", found.gated)
    return as_json({"private": found.private, "gated": found.gated})


def branch(hub: Hub, asked: Asked, plural: str, name: str, new: str) -> Answer:
    """A new branch, or the end of one."""
    found = writable(hub, asked, plural, name)
    ref = f"refs/heads/{unquote(new)}"
    if asked.method == "DELETE":
        return _without(found, ref)
    if ref in found.refs:
        raise Refused(409, f"Reference already exists: {ref}")
    found.refs[ref] = found.at(asked.fields().get("startingPoint", "main")).oid
    return as_json({})


def tag(hub: Hub, asked: Asked, plural: str, name: str, revision: str) -> Answer:
    """A new tag at a revision, or the end of the tag of that name."""
    found = writable(hub, asked, plural, name)
    if asked.method == "DELETE":
        return _without(found, f"refs/tags/{unquote(revision)}")
    ref = f"refs/tags/{asked.fields()['tag']}"
    if ref in found.refs:
        raise Refused(409, f"Tag reference exists already: {ref}")
    found.refs[ref] = found.at(unquote(revision)).oid
    return as_json({})


def _without(found: Repository, ref: str) -> Answer:
    if found.refs.pop(ref, None) is None:
        raise Refused(404, f"Invalid rev id: {ref}", "RevisionNotFound")
    return as_json({})


# Uploads ---------------------------------------------------------------------------------------------------


def validate_yaml(hub: Hub, asked: Asked) -> Answer:
    """The front matter of a README.md."""
    front = re.match(r"---\n(.*?)\n---\n", asked.fields()["content"], re.DOTALL)
    if front is None:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    errors = list(_card_errors(front[1]))
    return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _card_errors(text: str) -> Iterator[dict[str, str]]:
    try:
        card = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield {"message": f"bad indentation or another mistake: {error}"}
        return
    if not isinstance(card, dict):
        yield {"message": "the metadata must be a mapping"}
        return
    for key, kinds in {"license": (str, list), "tags": (list,), "configs": (list,), "pretty_name": (str,)}.items():
        if not isinstance(card.get(key, kinds[0]()), kinds):
            yield {"message": f'"{key}" must be of another type'}
    names = [config.get("config_name") for config in card.get("configs") or []]
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        yield {"message": '"configs" must have different names'}


def preupload(hub: Hub, asked: Asked, plural: str, name: str, revision: str) -> Answer:
    """Which files are large, and what a revision has under their names."""
    found = writable(hub, asked, plural, name, asked.flag("create_pr"))
    there = found.at(unquote(revision)).files
    files = []
    for wanted in asked.fields()["files"]:
        large = found.is_large(wanted["path"], wanted["size"], base64.b64decode(wanted.get("sample", "")))
        one = {"path": wanted["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        files.append(one | ({"oid": there[wanted["path"]].etag} if wanted["path"] in there else {}))
    return as_json({"files": files, "commitOid": found.at(unquote(revision)).oid})


def lfs_batch(hub: Hub, asked: Asked, plural: str, name: str) -> Answer:
    """Where large files are to be put; those that are there need nothing."""
    # Whether it will be a pull request is not known here; who may not write is refused at the commit.
    found = writable(hub, asked, plural, name, pull_request=True)
    store, verify = f"{asked.url}/large/{plural}/{name}", f"{asked.url}/{plural}/{name}.git/info/lfs/objects/verify"
    objects = []
    for wanted in asked.fields()["objects"]:
        one = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in found.objects:
            upload = _upload(f"{store}/{wanted['oid']}", wanted["size"], hub.part_size)
            one["actions"] = {"upload": upload, "verify": {"href": verify}}
        objects.append(one)
    multipart = any("header" in one.get("actions", {}).get("upload", {}) for one in objects)
    return as_json({"transfer": "multipart" if multipart else "basic", "objects": objects})


def _upload(href: str, size: int, part: int | None) -> dict[str, Any]:
    if part is None or size <= part:
        return {"href": href}
    parts = {f"{number + 1:05d}": f"{href}/{number + 1}" for number in range(-(-size // part))}
    return {"href": f"{href}/complete", "header": {"chunk_size": str(part), **parts}}


def put_large(hub: Hub, asked: Asked, plural: str, name: str, oid: str, part: str = "") -> Answer:
    """The bytes of a large file, or of a part of one; as with a bucket, the address is the permission."""
    found = hub.repository(name)
    if part:
        found.parts[oid, int(part)] = asked.body
        return Answer(headers={"ETag": f'"{hashlib.md5(asked.body, usedforsecurity=False).hexdigest()}"'})
    return _stored(found, oid, asked.body)


def complete_large(hub: Hub, asked: Asked, plural: str, name: str, oid: str) -> Answer:
    """All parts of a large file have come."""
    found = hub.repository(name)
    numbers = [part["partNumber"] for part in asked.fields()["parts"]]
    return _stored(found, oid, b"".join(found.parts.pop((oid, number)) for number in numbers))


def _stored(found: Repository, oid: str, data: bytes) -> Answer:
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refused(400, "The Content-SHA256 you specified did not match what we received.")
    found.objects[oid] = data
    return Answer()


def verify_large(hub: Hub, asked: Asked, plural: str, name: str) -> Answer:
    """Whether a large file has arrived."""
    fields = asked.fields()
    if len(hub.repository(name).objects.get(fields["oid"], b"")) != fields["size"]:
        raise Refused(404, "Object does not exist")
    return as_json({})


def xet_token(hub: Hub, asked: Asked, plural: str, name: str, access: str, revision: str) -> Answer:
    """Where the client puts and gets large files by itself."""
    if hub.xet is None:
        raise Refused(404, "xet is not enabled for this repo")
    if access == "write":
        writable(hub, asked, plural, name, pull_request=True)
    place, end = f"local://{hub.xet}", int(time.time()) + 3600
    return as_json(
        {"casUrl": place, "exp": end, "accessToken": "xet"},
        X_Xet_Cas_Url=place, X_Xet_Token_Expiration=str(end), X_Xet_Access_Token="xet",
    )  # fmt: skip


# Commits ---------------------------------------------------------------------------------------------------


def commit(hub: Hub, asked: Asked, plural: str, name: str, revision: str) -> Answer:
    """All operations of a commit or none, on a branch or in a new pull request."""
    found, revision = writable(hub, asked, plural, name, asked.flag("create_pr")), unquote(revision)
    who = user(asked).name
    lines = [json.loads(line) for line in asked.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    head, ref = found.at(revision), found.ref(revision)
    if ref is None or ref.startswith("refs/tags/"):
        raise Refused(400, f"Invalid rev id: {revision} is no branch")
    if header.get("parentCommit", head.oid) != head.oid:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines:
        _operation(files, line["key"], line["value"], None if hub.xet else found.objects)
    title, message = header["summary"], header.get("description", "")
    answer: dict[str, Any] = {"success": True}
    if asked.flag("create_pr"):
        request = opened(found, title, message, who, "open")
        request.base = head.oid
        ref = request.ref
        answer["pullRequestUrl"] = f"{asked.url}/{plural}/{name}/discussions/{request.num}"
    made = found.commit(ref, files, title, message, who, parent=head.oid)
    answer |= {"commitOid": made.oid, "commitUrl": f"{asked.url}/{plural}/{name}/commit/{made.oid}"}
    return as_json(answer)


def _operation(files: dict[str, Blob], key: str, value: dict[str, Any], there: dict[str, bytes] | None) -> None:
    """Change files as one line of a commit says; `there` are the large files that have arrived, if that is known."""
    path = value.get("path", "")
    if key == "file":
        data = base64.b64decode(value["content"])
        files[path] = Blob(len(data), data)
    elif key == "lfsFile":
        if there is not None and value["oid"] not in there:
            raise Refused(400, f"LFS pointer pointed to a file that does not exist: {path}")
        size = value["size"] if "size" in value or there is None else len(there[value["oid"]])
        files[path] = Blob(size, sha256=value["oid"])
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    elif key == "deletedFolder":
        below = [name for name in files if name.startswith(f"{path.rstrip('/')}/")]
        if not below:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in below:
            del files[name]
    elif key != "header":
        raise Refused(400, f"Unknown operation {key}")
