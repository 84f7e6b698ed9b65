"""What the Hub answers when it refuses, and what the network does, as one sentence that says what to do.

No sentence holds a token: `redacted` takes out what looks like one, and the one that is in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from vpt_data.errors import HubError, VptDataError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write"
#: Answers after which the same request may do: conflicts with others, too many requests, trouble of the server.
_PASSING = {408, 409, 412, 425, 429, 500, 502, 503, 504}
_QUOTA = re.compile(r"quota|storage limit|storage space|payment required", re.IGNORECASE)
_TOKEN = re.compile(r"hf_\w+")


class Passing(HubError):
    """Something that may be over at the next attempt.

    after   seconds that the Hub asks to wait, 0 where it says nothing
    """

    def __init__(self, sentence: str, after: float = 0) -> None:
        super().__init__(sentence)
        self.after = after


class OutOfReach(Passing):
    """Nothing listens at the endpoint; at the first contact that is no accident."""


def endpoint() -> str:
    """The server that is asked, and given the token if there is one; HF_ENDPOINT changes it. Without a password."""
    from huggingface_hub import constants

    return re.sub("//[^/@]*@", "//", constants.ENDPOINT)


def redacted(text: str) -> str:
    """The text without tokens.

    >>> redacted("Bearer hf_abc123: refused")
    'Bearer <token>: refused'
    """
    from huggingface_hub import get_token

    token = get_token()
    if token and len(token) > 4:
        text = text.replace(token, "<token>")
    return _TOKEN.sub("<token>", text)


@contextmanager
def asking(repo: str) -> Iterator[None]:
    """Inside, what the Hub and the network do becomes a HubError, or Passing where another attempt may do."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except VptDataError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise HubError(f"{repo}: nothing can be pushed in offline mode; unset HF_HUB_OFFLINE.") from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError(f"{repo}: there is no token for {endpoint()}; {LOG_IN}.") from error
    except errors.HfHubHTTPError as error:
        raise _of_answer(repo, error) from error
    except httpx2.HTTPError as error:
        raise _of_network(repo, error) from error
    except (OSError, RuntimeError, ValueError, httpx2.InvalidURL) as error:
        raise _of_client(repo, error) from error
    except (KeyError, TypeError) as error:
        raise HubError(f"{repo}: {endpoint()} does not answer as the Hub does; check HF_ENDPOINT.") from error


def _of_answer(repo: str, error: Exception) -> HubError:
    """The sentence for an answer with a status that is an error."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    status, said = error.response.status_code, _said(error)
    if status in _PASSING:
        return Passing(f"{repo}: {endpoint()} answered {status} ({said})", _seconds(error))
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo}: the repository asks who reads it to accept its terms; do that on its page first.")
    if status == 402 or _QUOTA.search(said):
        return HubError(f"{repo}: the account has no room left ({said}); free some, or get more, and push again.")
    if status == 401:
        return HubError(f"{repo}: {endpoint()} does not accept the token ({said}); {LOG_IN}.")
    if isinstance(error, errors.DisabledRepoError):
        return HubError(f"{repo}: the Hub has disabled this repository; see its page.")
    if status == 403:
        return HubError(
            f"{repo}: this account or its token may not do that ({said}); use a token with the role write, and be a "
            f"member of {repo.partition('/')[0]} who may write, or propose the change with --create-pr."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repo}: the Hub has no such revision ({said}); check --revision.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(f"{repo}: there is no such data set on {endpoint()}, or not for this account; check the name.")
    return HubError(f"{repo}: {endpoint()} refused with {status} ({said}).")


def _of_network(repo: str, error: Exception) -> HubError:
    import httpx2

    if isinstance(error, httpx2.ConnectError | httpx2.UnsupportedProtocol):
        return OutOfReach(f"{repo}: {endpoint()} cannot be reached ({_first_line(error)})")
    if isinstance(error, httpx2.LocalProtocolError):
        return HubError(f"{repo}: the request cannot be sent ({_first_line(error)}); check the token, and HF_ENDPOINT.")
    return Passing(f"{repo}: the connection to {endpoint()} broke ({_first_line(error)})")


def _of_client(repo: str, error: Exception) -> HubError:
    """What the client itself raises: around the upload of a file the cause is inside."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error.__cause__, errors.HfHubHTTPError):
        return _of_answer(repo, error.__cause__)
    if isinstance(error.__cause__, httpx2.HTTPError):
        return _of_network(repo, error.__cause__)
    if isinstance(error, RuntimeError | ConnectionError | TimeoutError):
        return Passing(f"{repo}: the upload broke ({_first_line(error.__cause__ or error)})")
    return HubError(f"{repo}: {' '.join(redacted(str(error)).split())}".rstrip(".") + ".")


def _seconds(error: Exception) -> float:
    """What a Retry-After header asks for."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.isdigit() else 0.0


def _said(error: Exception) -> str:
    """What the server gives as its reason, in short."""
    said = getattr(error, "server_message", None) or str(error)
    return _short(said)


def _first_line(error: BaseException) -> str:
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    line = next((line.strip() for line in redacted(text).splitlines() if line.strip()), "")
    return line[:300].rstrip(".")
