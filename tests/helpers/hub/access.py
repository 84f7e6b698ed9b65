"""Who may read and write a repository, and the Hub's words where somebody may not."""

from __future__ import annotations

from urllib.parse import unquote

from helpers.hub.accounts import User
from helpers.hub.answers import Asked, Refused
from helpers.hub.repositories import Hub, Kind, Repository


def kind_of(plural: str) -> Kind:
    """`datasets` in an address means a repository of kind `dataset`."""
    return "dataset" if plural.startswith("dataset") else "model"


def user(asked: Asked) -> User:
    """Who asks; Refused where nobody does."""
    if asked.token is None:
        raise Refused(401, "Invalid username or password.")
    return asked.token.user


def readable(hub: Hub, asked: Asked, plural: str, name: str) -> Repository:
    """A repository whose lists the asking user may see."""
    found = hub.repositories.get((kind_of(plural), unquote(name)))
    member = found is not None and asked.token is not None and asked.token.user.owns(found.namespace)
    if found is None or (found.private and not member):
        # Without a token the Hub does not tell a missing repository from a private one. It gives no code then; the
        # client takes that for RepoNotFound over https only, so here the code says it.
        status = 401 if asked.token is None else 404
        raise Refused(
            status, "Invalid username or password." if status == 401 else "Repository not found", "RepoNotFound"
        )
    return found


def with_content(hub: Hub, asked: Asked, plural: str, name: str) -> Repository:
    """A repository whose files the asking user may read."""
    found = readable(hub, asked, plural, name)
    who = asked.token.user if asked.token else None
    if found.gated and not (who and (who.owns(found.namespace) or who.name in found.members)):
        status = 401 if who is None else 403
        raise Refused(
            status, f"Access to dataset {found.name} is restricted and you are not in the authorized list.", "GatedRepo"
        )
    return found


def writable(hub: Hub, asked: Asked, plural: str, name: str, pull_request: bool = False) -> Repository:
    """A repository that the asking user may change, or open a pull request in."""
    who = user(asked)
    found = with_content(hub, asked, plural, name)
    assert asked.token is not None
    if asked.token.role != "write":
        raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
    if not pull_request and not who.owns(found.namespace):
        raise Refused(
            403, f'Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request on "{found.name}".'
        )
    return found
