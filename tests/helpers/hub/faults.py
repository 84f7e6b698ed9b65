"""What goes wrong at which request, and the log of all requests.

A test plans faults before it starts a client. Each is struck by the request of its number, counted from 0 among those
that fit its pattern since it was planned.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from helpers.hub.answers import Answer, Refused


class Wrong(StrEnum):
    """What can go wrong. In the names, the effect is what the request changes in the repository."""

    ERROR = "500"
    BUSY = "503"
    SLOW_DOWN = "429, again at once"
    WAIT = "429, again after a second"
    EXPIRED = "401"
    FORBIDDEN = "403"
    QUOTA = "403, storage limit"
    PAYMENT = "402"
    STALE = "somebody else's commit before it"
    DROP = "dropped before it"
    DROP_IN_BODY = "dropped in its body"
    DROP_AFTER_BODY = "dropped after its body, without effect"
    DROP_AFTER_EFFECT = "dropped after its effect"
    DROP_IN_ANSWER = "dropped in its answer"
    KILL = "the client is killed before it"
    KILL_IN_BODY = "the client is killed in its body"
    KILL_AFTER_EFFECT = "the client is killed after its effect"

    @property
    def kills(self) -> bool:
        """Whether the client dies."""
        return self in {Wrong.KILL, Wrong.KILL_IN_BODY, Wrong.KILL_AFTER_EFFECT}

    @property
    def without_effect(self) -> bool:
        """Whether the connection ends before the request does anything."""
        return self in {Wrong.DROP, Wrong.DROP_IN_BODY, Wrong.DROP_AFTER_BODY, Wrong.KILL, Wrong.KILL_IN_BODY}

    @property
    def in_body(self) -> bool:
        """Whether half of the body is read."""
        return self in {Wrong.DROP_IN_BODY, Wrong.KILL_IN_BODY}

    @property
    def after_effect(self) -> bool:
        """Whether the client hears nothing of what it has done."""
        return self in {Wrong.DROP_AFTER_EFFECT, Wrong.KILL_AFTER_EFFECT}


_LIMIT = "Private repository storage limit reached, please upgrade your plan to increase your private storage limit."
_REFUSALS: dict[Wrong, Callable[[], Refused]] = {
    Wrong.ERROR: lambda: Refused(500, "Internal Error - We're working hard to fix this as soon as possible!"),
    Wrong.BUSY: lambda: Refused(503, "Service Unavailable"),
    Wrong.SLOW_DOWN: lambda: Refused(429, "Too Many Requests"),
    Wrong.WAIT: lambda: Refused(429, "Too Many Requests"),
    Wrong.EXPIRED: lambda: Refused(401, "Invalid credentials in Authorization header"),
    Wrong.FORBIDDEN: lambda: Refused(403, "You don't have the required permissions to perform this action."),
    Wrong.QUOTA: lambda: Refused(403, _LIMIT),
    Wrong.PAYMENT: lambda: Refused(402, "Payment required"),
}
_AGAIN = {Wrong.SLOW_DOWN: "0", Wrong.WAIT: "1"}


def refusal(wrong: Wrong) -> Answer | None:
    """The answer in place of the right one."""
    made = _REFUSALS.get(wrong)
    if made is None:
        return None
    answer = made().answer
    if wrong in _AGAIN:
        answer.headers["Retry-After"] = _AGAIN[wrong]
    return answer


@dataclass
class Fault:
    """Goes wrong at the `at`-th request that fits, and at those after it, `times` in all.

    fits   a pattern, searched for in `METHOD /path?query`
    """

    wrong: Wrong
    at: int = 0
    fits: str = ""
    times: int = 1
    counted: int = 0
    struck: int = 0

    def strikes(self, line: str) -> bool:
        """Whether this request is one of them; counts it."""
        if not re.search(self.fits, line):
            return False
        self.counted += 1
        hit = self.at < self.counted <= self.at + self.times
        self.struck += hit
        return hit


@dataclass
class Seen:
    """A request in the log: what came and went, and what went wrong with it."""

    number: int
    method: str
    path: str
    query: str = ""
    status: int = 0
    received: int = 0
    sent: int = 0
    wrong: Wrong | None = None

    @property
    def line(self) -> str:
        """`METHOD /path?query`."""
        return f"{self.method} {self.path}" + (f"?{self.query}" if self.query else "")

    @property
    def changes(self) -> bool:
        """Whether it may have an effect."""
        return self.method not in {"GET", "HEAD"}


@dataclass
class Faults:
    """The faults that are planned, and the log."""

    planned: list[Fault] = field(default_factory=list)
    log: list[Seen] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, *faults: Fault) -> None:
        """These faults from now on, no others, and an empty log."""
        with self._lock:
            self.planned, self.log = list(faults), []

    def seen(self, method: str, path: str, query: str) -> Seen:
        """Log a request and decide what goes wrong with it."""
        with self._lock:
            one = Seen(len(self.log), method, path, query)
            self.log.append(one)
            struck = [fault.wrong for fault in self.planned if fault.strikes(one.line)]
            one.wrong = struck[0] if struck else None
            return one
