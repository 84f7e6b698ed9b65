"""Users, organizations and tokens of the test Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Tokens look like real ones, so that a test finds one that is printed somewhere.
WRITE = "hf_" + "WriteTokenOfMe" * 2
READ = "hf_" + "ReadTokenOfMe" * 2
EXPIRED = "hf_" + "ExpiredTokenOfMe" * 2
STRANGER = "hf_" + "TokenOfStranger" * 2
SECRETS = (WRITE, READ, EXPIRED, STRANGER)


@dataclass(frozen=True)
class User:
    """Somebody, and the organizations that they are a member of."""

    name: str
    organizations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Whether the namespace is theirs or that of an organization of theirs."""
        return namespace == self.name or namespace in self.organizations


@dataclass(frozen=True)
class Token:
    """What a token allows; nothing when it has expired."""

    user: User
    role: Literal["read", "write"] = "write"
    expired: bool = False


ME = User("me", ("org",))


def tokens() -> dict[str, Token]:
    """The tokens of every new server."""
    return {
        WRITE: Token(ME),
        READ: Token(ME, "read"),
        EXPIRED: Token(ME, expired=True),
        STRANGER: Token(User("stranger")),
    }
