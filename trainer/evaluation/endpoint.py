"""A model behind the interface of OpenAI (its own, vLLM, SGLang and others), asked again where that can help."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from vpt_data.errors import UsageError

if TYPE_CHECKING:
    import openai

_LONGEST_WAIT: Final = 60.0


class NoReply(Exception):
    """A request that got no reply; the text says why."""


class Refused(NoReply):
    """A request that a living server answers with none, and would do so again."""


class Server(NamedTuple):
    """Where a model is, and words for messages.

    who       what it is for: `The judge`
    settings  what a user can check if it refuses every request
    missing   the sentence where there is no key
    url, key  None: of the environment, OPENAI_BASE_URL and OPENAI_API_KEY
    """

    who: str
    settings: str
    missing: str = ""
    url: str | None = None
    key: str | None = None


class Reply(NamedTuple):
    """A reply: its text, why it ended (`stop`, `length`, None where the server does not say), its tokens if counted."""

    text: str
    ended: str | None = None
    tokens: int | None = None


class _Message(msgspec.Struct):
    content: str | None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class Endpoint:
    """One model of a server, at temperature 0; its methods can be called by many threads.

    max_tokens  of a reply
    timeout     seconds for one attempt
    attempts    in all, for what may pass: no connection, a time-out, a busy server, a reply that is cut
    wait        called with the seconds between two attempts: 1, 2, 4 and so on, or what the server asks for
    more        keys of the request that the interface of OpenAI does not have

    Raises UsageError where the package `openai` or the key is missing.
    """

    def __init__(
        self,
        model: str,
        server: Server,
        max_tokens: int,
        timeout: float = 60.0,
        attempts: int = 6,
        wait: Callable[[float], None] = time.sleep,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{server.who} needs openai, which is not installed; pip install 'vpt-data[judge]'."
            ) from error
        self._errors = openai
        try:
            # The client would repeat by itself, with waits of its own and not where a reply is cut.
            self._client = openai.OpenAI(base_url=server.url, api_key=server.key, timeout=timeout, max_retries=0)
        except openai.OpenAIError as error:
            raise UsageError(server.missing) from error
        self.model, self._server, self._max_tokens = model, server, max_tokens
        self._attempts, self._wait, self._more = attempts, wait, more

    @property
    def url(self) -> str:
        """The address, without a name and a password in it."""
        return str(self._client.base_url.copy_with(username=None, password=None, query=None))

    @property
    def name(self) -> str:
        """What decides its replies, for a cache: model, address and settings."""
        return f"{self.model} at {self.url}, temperature 0, {self._max_tokens} tokens"

    def reply(self, prompt: str) -> str:
        """What the model says to a prompt; raises what `say` raises."""
        return self.say([{"role": "user", "content": prompt}]).text

    def say(self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None = None) -> Reply:
        """What the model says next in a chat, in `max_tokens` at most if these are fewer.

        Raises NoReply where there is no reply after all attempts, Refused where the server refuses this request, and
        UsageError where it would refuse every one.
        """
        for attempt in range(self._attempts):
            try:
                return self._once(messages, max_tokens or self._max_tokens)
            except self._errors.APIStatusError as error:
                cause, asked = self._refused(error), _retry_after(error)
            except self._errors.APIConnectionError as error:
                cause, asked = f"no connection: {error.__cause__ or error}", None
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                cause, asked = f"the reply is cut or no JSON of a chat: {error}", None
            if attempt + 1 < self._attempts:
                self._wait(min(2.0**attempt if asked is None else asked, _LONGEST_WAIT))
        raise NoReply(f"{cause} ({self._attempts} attempts)")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _once(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> Reply:
        chat: Any = messages  # plain JSON, for which the client has a type of every part
        sent = self._client.chat.completions.with_raw_response.create(
            model=self.model, messages=chat, temperature=0, max_tokens=max_tokens, extra_body=self._more
        )
        body = msgspec.json.decode(sent.http_response.content, type=_Body)
        if not body.choices or body.choices[0].message.content is None:
            raise Refused("the reply has no text")
        first = body.choices[0]
        tokens = None if body.usage is None else body.usage.completion_tokens
        return Reply(first.message.content or "", first.finish_reason, tokens)

    def _refused(self, error: openai.APIStatusError) -> str:
        """What the server said where a later attempt may succeed; else it is raised."""
        status, said = error.status_code, " ".join(error.response.text.split())[:200]
        if status in {401, 403, 404}:
            raise UsageError(
                f"{self._server.who} {self.model} at {self.url} cannot be asked (HTTP {status}: {said}); check "
                f"{self._server.settings}."
            ) from error
        if status not in {408, 409, 425, 429} and status < 500:
            raise Refused(f"HTTP {status}: {said}") from error
        return f"HTTP {status}: {said}"


def _retry_after(error: openai.APIStatusError) -> float | None:
    """The seconds that the server asks to wait, if it does and they are a number."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if seconds >= 0 else None
