"""A teacher that follows a script: for tests, and for dry runs of any recipe. It ships with the library."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count

from stillhouse.errors import RecipeError
from stillhouse.teachers.asking.keys import canonical_json
from stillhouse.teachers.base import Answer, Capability, Failure, FinishReason, Identity, Outcome, Request

__all__ = ["Teacher"]

Reply = str | Sequence[str]
_PLACE = re.compile(r"\{(prompt|reference|index|[1-9])\}")


class Teacher:
    """Replies by prompt, by pattern, in order, or the reference; with failures on purpose where `fail` says so.

    Looked for in this order: `replies` as a mapping (the whole last message, exactly), `responses` (regular expressions
    searched in the whole conversation, first match wins), `replies` as a list (one after the other, as they are asked),
    `reply`. A value may be a list: sample_index picks one. In a reply `{prompt}`, `{reference}`, `{index}` (sample
    index) and `{1}` ... `{9}` (groups of the pattern) are filled in; `reply: reference` is short for `{reference}`.
    `fail` maps a failure to k: every k-th request asked fails so (`{truncated: 3}`). `truncated`, `refused` and `empty`
    come as a server would send them; any other name is a failure of that name. Raises RecipeError for a broken pattern.
    """

    capabilities: frozenset[Capability] = frozenset({"generate"})
    rungs = 1

    def __init__(
        self,
        *,
        reply: Reply = "reference",
        replies: Mapping[str, Reply] | Sequence[str] | None = None,
        responses: Mapping[str, Reply] | None = None,
        fail: Mapping[str, int] | None = None,
    ) -> None:
        self._reply = "{reference}" if reply == "reference" else reply
        self._by_prompt = dict(replies) if isinstance(replies, Mapping) else {}
        self._in_order = list(replies) if replies is not None and not isinstance(replies, Mapping) else []
        self._by_pattern = [(_pattern(text), value) for text, value in (responses or {}).items()]
        self._fail = dict(fail or {})
        for kind, every in self._fail.items():
            if not isinstance(every, int) or every < 1:
                raise RecipeError(
                    f"scripted teacher: fail.{kind} is every how-many-th request fails, 1 or more, not {every!r}"
                )
        script = [reply, replies if isinstance(replies, Mapping | None) else list(replies), responses, fail]
        self._digest = hashlib.sha256(canonical_json(_plain(script)).encode("utf-8")).hexdigest()
        self._asked = count(1)
        self._next = iter(self._in_order)

    def identity(self) -> Identity:
        return Identity("scripted", "scripted", revision=self._digest)

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        for request in requests:
            yield Outcome(request, self._result(request, next(self._asked)))

    def _result(self, request: Request, number: int) -> Answer | Failure:
        for kind, every in self._fail.items():
            if number % every == 0:
                return self._failed(kind, request)
        text = self._text(request)
        return text if isinstance(text, Failure) else _answer(request, text)

    def _failed(self, kind: str, request: Request) -> Answer | Failure:
        text = self._text(request)
        whole = "" if isinstance(text, Failure) else text
        if kind == "truncated":
            return _answer(request, whole[: len(whole) // 2], "length")
        if kind == "refused":
            return _answer(request, "", "refusal")
        return _answer(request, "") if kind == "empty" else Failure(kind, "scripted")

    def _text(self, request: Request) -> str | Failure:
        last = request.messages[-1].content if request.messages else ""
        if last in self._by_prompt:
            return _filled(self._by_prompt[last], request, None)
        whole = "\n".join(message.content for message in request.messages)
        for pattern, value in self._by_pattern:
            if match := pattern.search(whole):
                return _filled(value, request, match)
        if self._in_order:
            following = next(self._next, None)
            return (
                Failure("script_ended", f"the script has {len(self._in_order)} replies")
                if following is None
                else following
            )
        return _filled(self._reply, request, None)


def _filled(value: Reply, request: Request, match: re.Match[str] | None) -> str | Failure:
    text = value if isinstance(value, str) else value[request.sample_index % len(value)]
    if "{reference}" in text and request.expected is None:
        return Failure("no_reference", "the script answers with the reference, and this request has none")

    def place(found: re.Match[str]) -> str:
        name = found[1]
        if name.isdigit():
            return (match[int(name)] or "") if match is not None and match.re.groups >= int(name) else found[0]
        last = request.messages[-1].content if request.messages else ""
        return {"prompt": last, "reference": request.expected or "", "index": str(request.sample_index)}[name]

    return _PLACE.sub(place, text)


def _answer(request: Request, text: str, finish: FinishReason = "stop") -> Answer:
    words = sum(len(message.content.split()) for message in request.messages)
    return Answer(
        text, finish, served_model="scripted", input_tokens=words, output_tokens=len(text.split()), estimated=True
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise RecipeError(f"scripted teacher: responses: {text!r} is no regular expression ({error})") from error


def _plain(value: object) -> object:
    """Mappings keep their order in the digest: the first pattern that matches wins."""
    if isinstance(value, Mapping):
        return [[key, _plain(item)] for key, item in value.items()]
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
