"""A vLLM server: answers like any OpenAI-compatible one, and also says how likely the tokens of a response are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.records import Prompt
from stillhouse.teachers import openai
from stillhouse.teachers.asking.beliefs import own_beliefs, packed, read_prompt_logprobs
from stillhouse.teachers.asking.faults import plain
from stillhouse.teachers.asking.http import Received
from stillhouse.teachers.asking.wire import Fault, Reply
from stillhouse.teachers.base import Answer, Capability, Request, TokenBeliefs

__all__ = ["Teacher"]


class Teacher(openai.Teacher):
    """A model behind `vllm serve`. Its prompts for log-probs are sent as tokens, and each token is checked in the reply.

    `tokenizer` is a folder or hub name, the model's own where left out. The server caps how many log-probs it gives
    (`--max-logprobs`, 20 by default). Scores are asked through `Calls` only, which stores them. The other knobs are those
    of the `openai` backend.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "top_logprobs"})
    tells = True

    def __init__(
        self,
        *,
        model: str,
        base_url: str = "http://127.0.0.1:8000/v1",
        tokenizer: str | None = None,
        api: Literal["chat", "completions"] = "chat",
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 600.0,
        max_concurrency: int = 32,
        price: Mapping[str, float] | None = None,
        allow_drop: Sequence[str] = (),
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            model=model, base_url=base_url, api=api, api_key_env=api_key_env, timeout=timeout,
            max_concurrency=max_concurrency, price=price, allow_drop=allow_drop, extra_body=extra_body,
        )  # fmt: skip
        self._tokenizer_name, self._tokenizer = tokenizer or model, None

    def tokenizer_fingerprint(self) -> str:
        from stillhouse.render import fingerprint

        return fingerprint(self._loaded())

    def top_logprobs(self, pairs: Iterable[tuple[Prompt, str]], *, k: int) -> Iterator[TokenBeliefs]:
        raise RecipeError("the vllm teacher is asked through stillhouse.teachers.calls.Calls, which keeps what it says")

    async def exchange(self, request: Request, seed: int) -> Reply:
        if request.scored is None:
            return await super().exchange(request, seed)  # what is told beside an answer is read in `reply`
        from stillhouse.render import render

        row = render(self._loaded(), request.messages, request.scored)
        body = {
            "model": self._model,
            "prompt": row.ids,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": request.top_logprobs,
        }
        received, raw, status = await self.connected().post("/completions", body | self._extra, wall=self._clock.wall())
        if isinstance(received, Fault):
            return Reply(received, raw, status)
        choices = received.value.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        beliefs = read_prompt_logprobs(first.get("prompt_logprobs"), row.ids, row.start, request.top_logprobs)
        if isinstance(beliefs, Fault):
            return Reply(beliefs, raw, status)
        served = plain(received.value.get("model"))
        answer = Answer(f"({len(row.response)} tokens scored)", "stop", "", served, len(row.ids), 1)
        return Reply(
            answer, b"", status, input_tokens=len(row.ids), output_tokens=1, counted=True, logprobs=packed(beliefs)
        )

    def body(self, request: Request, seed: int) -> dict[str, Any]:
        body = super().body(request, seed)
        if request.top_logprobs:
            named = {"logprobs": True, "top_logprobs": request.top_logprobs}
            body |= named if self._api == "chat" else {"logprobs": request.top_logprobs}
            body["return_tokens_as_token_ids"] = True
        return body

    def reply(self, request: Request, received: Received) -> Reply:
        """With what was believed at each token where that was asked for; an answer without it says so in `ignored`."""
        made = super().reply(request, received)
        if not request.top_logprobs or not isinstance(made.result, Answer) or made.result.finish_reason != "stop":
            return made
        from stillhouse.render import render

        entries = _own_entries(received.value["choices"][0].get("logprobs"))
        if entries is None:
            return replace(made, result=replace(made.result, ignored=(*made.result.ignored, "logprobs")))
        written = [token for token, _ in entries]
        read = render(self._loaded(), request.messages, made.result.text).response
        told = own_beliefs([entry for _, entry in entries], written, read, request.top_logprobs)
        if isinstance(told, Fault):
            return replace(made, result=told)
        return made if told is None else replace(made, logprobs=packed(told))

    def _loaded(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            try:
                self._tokenizer = AutoTokenizer.from_pretrained(self._tokenizer_name)
            except (OSError, ValueError) as error:
                raise TeacherError(
                    f"the tokenizer {self._tokenizer_name!r} cannot be loaded; name the folder of the server's own in `tokenizer`"
                ) from error
        return self._tokenizer


def _own_entries(told: Any) -> list[tuple[int, dict[str, Any]]] | None:
    """(token, {token: {logprob}}) of each place, from the chat form or that of completions; None where it is neither."""
    if not isinstance(told, dict):
        return None
    try:
        if "content" in told:
            places = [
                (_id(place["token"]), {str(_id(each["token"])): each for each in (*place["top_logprobs"], place)})
                for place in told["content"]
            ]
        else:
            places = [
                (_id(token), {str(_id(name)): {"logprob": value} for name, value in {**top, token: own}.items()})
                for token, own, top in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
            ]
    except (KeyError, TypeError, ValueError):
        return None
    return places


def _id(token: str) -> int:
    """`token_id:17`; a server that writes the text of a token instead is not asked which one it means."""
    return int(token.removeprefix("token_id:"))
