"""Requests as the routes see them, answers, and refusals with the headers that the Hub's client looks at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from helpers.hub.accounts import Token


@dataclass
class Asked:
    """One request.

    url      where the client found the server, without a path
    token    None where the request carries none
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    url: str
    token: Token | None = None

    def parameter(self, name: str, default: str = "") -> str:
        """The last value of a parameter of the query."""
        return self.query.get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        """Whether a parameter of the query is on."""
        return self.parameter(name).lower() in {"1", "true"}

    def fields(self) -> dict[str, Any]:
        """The body as JSON, or as a form whose values are lists."""
        if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            return dict(parse_qs(self.body.decode()))
        found: dict[str, Any] = json.loads(self.body or b"{}")
        return found


@dataclass
class Answer:
    """One answer; `length` where a HEAD request gets no body."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON; `_` in the name of a header stands for `-`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **named})


class Refused(Exception):
    """An answer that is an error, from wherever a route finds it out."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.answer = as_json({"error": message, **more}, status, X_Error_Message=message)
        if code:
            self.answer.headers["X-Error-Code"] = code
