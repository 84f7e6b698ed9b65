"""What a push would do, or has done, as text for people and as plain values for JSON."""

from __future__ import annotations

from typing import Any

from vpt_data.exchange.hub.answers import endpoint
from vpt_data.exchange.hub.content import Content
from vpt_data.exchange.hub.plan import Plan, Wishes
from vpt_data.exchange.hub.push import Result
from vpt_data.exchange.hub.remote import Repository
from vpt_data.report import table, visible


def url(repository: Repository) -> str:
    """The page of the repository."""
    return f"{endpoint()}/datasets/{repository.name}"


def as_dict(repository: Repository, content: Content, plan: Plan, wishes: Wishes) -> dict[str, Any]:
    """What a push would do, or has done, as plain values."""
    needed, there = plan.difference, plan.tree.files
    return {
        "repo": repository.name,
        "url": url(repository),
        "endpoint": endpoint(),
        "new": plan.remote is None,
        "private": not plan.public,
        "revision": wishes.revision,
        "tag": plan.tag,
        "upload": [{"path": entry.path, "bytes": entry.size} for entry in needed.upload],
        "copy": [{"path": path, "from": source, "bytes": there[source].size} for path, source in needed.copy.items()],
        "delete": needed.delete,
        "unchanged": [{"path": path, "bytes": there[path].size} for path in needed.unchanged],
        "upload_bytes": sum(entry.size for entry in needed.upload),
        "configs": {
            part.config: {name: split.rows for name, split in part.manifest.splits.items() if split.shards}
            for part in content.parts
        },
    }


def result_as_dict(result: Result) -> dict[str, Any]:
    """What a push has done, beyond its plan."""
    return {"commit": result.commit, "new": result.created, "pull_request": result.pull_request}


def text(repository: Repository, content: Content, plan: Plan, wishes: Wishes, cards: str) -> str:
    """What a push would do, for people.

    cards   how the cards change
    """
    needed, there = plan.difference, plan.tree.files
    seen = "public" if plan.public else "private"
    state = f"new, {seen}" if plan.remote is None else seen
    lines = [f"repository: {url(repository)} ({state}), {_branch(plan, wishes)}"]
    rows = [
        *([entry.path, f"{entry.size:,}", "upload"] for entry in needed.upload),
        *([path, f"{there[source].size:,}", f"as {source}"] for path, source in needed.copy.items()),
        *([path, f"{there[path].size:,}", "delete"] for path in needed.delete),
        *([path, f"{there[path].size:,}", "unchanged"] for path in needed.unchanged),
    ]
    lines += ["", table(("file", "bytes", ""), sorted(rows)), ""]
    total = sum(entry.size for entry in needed.upload)
    lines.append(
        f"upload {len(needed.upload):,} files, {total:,} bytes; delete {len(needed.delete):,}; "
        f"unchanged {len(needed.unchanged) + len(needed.copy):,}"
    )
    lines += _readers(content)
    lines.append(f"tag: {plan.tag or 'none'}{' (is there)' if plan.tagged else ''}")
    if plan.pull_request is not None:
        lines.append(f"pull request: {plan.pull_request[0]} proposes this already")
    if cards:
        # The card that is there may be anybody's.
        lines += ["card:", visible(cards)]
    return "\n".join(lines)


def _branch(plan: Plan, wishes: Wishes) -> str:
    new = plan.remote is not None and plan.remote.head is None
    branch = f"branch {wishes.revision}{' (new)' if new else ''}"
    return f"a pull request for {branch}" if wishes.create_pr else branch


def _readers(content: Content) -> list[str]:
    """What `load_dataset` will find."""
    lines = []
    for number, part in enumerate(content.parts):
        splits = ", ".join(
            f"{name} {split.rows:,} rows" for name, split in part.manifest.splits.items() if split.shards
        )
        default = " (the default)" if number == 0 and len(content.parts) > 1 else ""
        lines.append(f"readers see: config {part.config}{default}: {splits}")
    return lines


def result_text(repository: Repository, result: Result) -> str:
    """What a push has done, for people."""
    needed = result.plan.difference
    tag = f", tag {result.plan.tag}" if result.plan.tag else ""
    if result.pull_request is not None:
        state = "Proposed already" if result.plan.pull_request else "Proposed"
        return f"{state}: {url(repository)}/discussions/{result.pull_request}  commit {result.commit[:12]}{tag}"
    if needed.empty:
        return f"Unchanged: {url(repository)}  commit {result.commit[:12]}{tag}; everything was there."
    total = sum(entry.size for entry in needed.upload)
    return (
        f"Pushed: {url(repository)}  commit {result.commit[:12]}{tag}; {len(needed.upload):,} files uploaded "
        f"({total:,} bytes), {len(needed.delete):,} deleted, {len(needed.unchanged) + len(needed.copy):,} unchanged."
    )
