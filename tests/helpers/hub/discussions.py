"""Routes of discussions and pull requests."""

from __future__ import annotations

from typing import Any, Literal

from helpers.hub.access import readable, user, writable
from helpers.hub.answers import Answer, Asked, Refused, as_json
from helpers.hub.repositories import Commit, Discussion, Hub, Repository

_PAGE = 10


def opened(
    found: Repository, title: str, description: str, author: str, status: Literal["open", "draft"] | None
) -> Discussion:
    """A new discussion; a status makes it a pull request."""
    is_pull_request, number = status is not None, len(found.discussions) + 1
    made = Discussion(number, title, author, description, is_pull_request, status or "open", found.now())
    found.discussions.append(made)
    return made


def listed(hub: Hub, asked: Asked, plural: str, name: str) -> Answer:
    """Ten discussions at a time, the newest first."""
    found = readable(hub, asked, plural, name)
    wanted = [
        one
        for one in reversed(found.discussions)
        if asked.parameter("type", "all") in {"all", "pull_request" if one.is_pull_request else "discussion"}
        and asked.parameter("status", "all") in {"all", "closed" if one.status in {"closed", "merged"} else "open"}
        and asked.parameter("author", one.author) == one.author
    ]
    start = int(asked.parameter("p", "0")) * _PAGE
    page = [_short(found, plural, one) for one in wanted[start : start + _PAGE]]
    return as_json({"discussions": page, "count": len(wanted), "start": start, "numClosedDiscussions": 0})


def _short(found: Repository, plural: str, one: Discussion) -> dict[str, Any]:
    return {
        "num": one.num, "title": one.title, "status": one.status, "createdAt": one.date,
        "isPullRequest": one.is_pull_request, "author": {"name": one.author, "type": "user"},
        "repo": {"name": found.name, "type": plural.removesuffix("s")},
    }  # fmt: skip


def details(hub: Hub, asked: Asked, plural: str, name: str, number: str) -> Answer:
    """One discussion with its description and commits."""
    found = readable(hub, asked, plural, name)
    one = _discussion(found, number)
    comment = {"edited": False, "hidden": False, "latest": {"raw": one.description}}
    events = [_event(one, "comment", comment)]
    changes: dict[str, Any] = {}
    if one.is_pull_request:
        changes = {"base": "refs/heads/main"} | ({"mergeCommitId": one.merged_as} if one.merged_as else {})
        events += [_event(one, "commit", {"subject": made.title, "oid": made.oid}) for made in _commits(found, one)]
    return as_json(
        _short(found, plural, one)
        | {"events": events, "changes": changes, "filesWithConflicts": _conflicts(found, one)}
    )


def _event(one: Discussion, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"{one.num:024x}", "type": kind, "createdAt": one.date, "author": {"name": one.author}, "data": data}


def _discussion(found: Repository, number: str) -> Discussion:
    if not 1 <= int(number) <= len(found.discussions):
        raise Refused(404, "Discussion not found")
    return found.discussions[int(number) - 1]


def _commits(found: Repository, one: Discussion) -> list[Commit]:
    """The commits of a pull request, the oldest first."""
    history = found.history(one.ref) if one.ref in found.refs else []
    oids = [made.oid for made in history]
    return history[: oids.index(one.base) if one.base in oids else len(history)][::-1]


def _conflicts(found: Repository, one: Discussion) -> list[str]:
    """The files that both a pull request and, since then, the main branch have changed."""
    if one.base is None or one.status == "merged":
        return []
    base, ours, theirs = (found.at(revision).files for revision in (one.base, "main", one.ref))
    return sorted(
        path
        for path in base.keys() | ours.keys() | theirs.keys()
        if base.get(path) != ours.get(path)
        and base.get(path) != theirs.get(path)
        and ours.get(path) != theirs.get(path)
    )


def create(hub: Hub, asked: Asked, plural: str, name: str) -> Answer:
    """A new discussion or an empty pull request."""
    found = writable(hub, asked, plural, name, pull_request=True)
    fields = asked.fields()
    status: Literal["draft"] | None = "draft" if fields.get("pullRequest") else None
    one = opened(found, fields["title"], fields["description"], user(asked).name, status)
    if one.is_pull_request:
        one.base = found.refs[one.ref] = found.at("main").oid
    return as_json({"num": one.num, "pullRequest": one.is_pull_request})


def change(hub: Hub, asked: Asked, plural: str, name: str, number: str, what: str) -> Answer:
    """Merge, close or open, comment, or rename."""
    found = writable(hub, asked, plural, name)
    one, fields = _discussion(found, number), asked.fields() or {}
    if what == "merge":
        return _merged(found, one, user(asked).name)
    if what == "status":
        one.status = fields["status"]
        return as_json({"newStatus": _event(one, "status-change", {"status": one.status})})
    if what == "title":
        one.title = fields["title"]
        return as_json({"newTitle": _event(one, "title-change", {"from": one.title, "to": one.title})})
    data = {"edited": False, "hidden": False, "latest": {"raw": fields["comment"]}}
    return as_json({"newMessage": _event(one, "comment", data)})


def _merged(found: Repository, one: Discussion, author: str) -> Answer:
    """As one commit on the main branch, with what the pull request changes and nothing else."""
    if not one.is_pull_request or one.status != "open" or one.base is None:
        raise Refused(400, f"This pull request is {one.status}")
    if conflicts := _conflicts(found, one):
        raise Refused(409, f"There are conflicts in {', '.join(conflicts)}")
    base, theirs = found.at(one.base).files, found.at(one.ref).files
    files = {path: blob for path, blob in found.at("main").files.items() if path in theirs or path not in base}
    files |= {path: blob for path, blob in theirs.items() if base.get(path) != blob}
    one.merged_as = found.commit("refs/heads/main", files, f"{one.title} (#{one.num})", "", author).oid
    one.status = "merged"
    return as_json({})
