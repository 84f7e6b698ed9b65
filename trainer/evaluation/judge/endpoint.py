"""A model behind the interface of OpenAI (its own, vLLM, SGLang and others), asked again where that can help.

The address and the key come from the environment, OPENAI_BASE_URL and OPENAI_API_KEY.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from trainer.evaluation.judge.prompt import MAX_TOKENS
from vpt_data.errors import UsageError

if TYPE_CHECKING:
    import openai

_LONGEST_WAIT: Final = 60.0


class NoReply(Exception):
    """A prompt that got no reply; the text says why."""


class _Message(msgspec.Struct):
    content: str | None


class _Choice(msgspec.Struct):
    message: _Message


class _Body(msgspec.Struct):
    choices: list[_Choice]


class Endpoint:
    """One model of a server; `reply` can be called by many threads.

    timeout   seconds for one attempt
    attempts  in all, for what may pass: no connection, a time-out, a busy server, a reply that is cut
    wait      called with the seconds between two attempts: 1, 2, 4 and so on, or what the server asks for

    Raises UsageError where the package `openai` or the key is missing.
    """

    def __init__(
        self, model: str, timeout: float = 60.0, attempts: int = 6, wait: Callable[[float], None] = time.sleep
    ) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise UsageError("A judge needs openai, which is not installed; pip install 'vpt-data[judge]'.") from error
        self._errors = openai
        try:
            # The client would repeat by itself, with waits of its own and not where a reply is cut.
            self._client = openai.OpenAI(timeout=timeout, max_retries=0)
        except openai.OpenAIError as error:
            raise UsageError(
                "The judge has no key; set OPENAI_API_KEY, and OPENAI_BASE_URL for a server of your own (with any key "
                "where it asks for none)."
            ) from error
        self.model, self._attempts, self._wait = model, attempts, wait

    @property
    def name(self) -> str:
        """What decides its replies, for the cache: model, address and settings."""
        return f"{self.model} at {self._client.base_url}, temperature 0, {MAX_TOKENS} tokens"

    def reply(self, prompt: str) -> str:
        """What the model says to a prompt, at temperature 0.

        Raises NoReply where there is no reply after all attempts or the server refuses this prompt, and UsageError
        where it would refuse every one.
        """
        for attempt in range(self._attempts):
            try:
                return self._once(prompt)
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

    def _once(self, prompt: str) -> str:
        sent = self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=MAX_TOKENS,
        )
        body = msgspec.json.decode(sent.http_response.content, type=_Body)
        if not body.choices or body.choices[0].message.content is None:
            raise NoReply("the reply has no text")
        return body.choices[0].message.content

    def _refused(self, error: openai.APIStatusError) -> str:
        """What the server said where a later attempt may succeed; else it is raised."""
        status, said = error.status_code, " ".join(error.response.text.split())[:200]
        if status in {401, 403, 404}:
            raise UsageError(
                f"The judge {self.model} at {self._client.base_url} cannot be asked (HTTP {status}: {said}); check its "
                "name, OPENAI_BASE_URL and OPENAI_API_KEY."
            ) from error
        if status not in {408, 409, 425, 429} and status < 500:
            raise NoReply(f"HTTP {status}: {said}") from error
        return f"HTTP {status}: {said}"


def _retry_after(error: openai.APIStatusError) -> float | None:
    """The seconds that the server asks to wait, if it does and they are a number."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if seconds >= 0 else None
