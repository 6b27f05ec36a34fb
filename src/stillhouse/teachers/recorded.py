"""Answers that somebody already has: a log, a published data set, the output of another tool."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import RecipeError
from stillhouse.records import Prompt
from stillhouse.teachers.base import Answer, Capability, Failure, FinishReason, Identity, Outcome, Request

__all__ = ["Teacher"]

_HEAD = 16  # characters by which a recorded prompt is found inside a longer one


class Teacher:
    """Looks answers up by prompt; a prompt nobody recorded was not asked (`not_recorded`), never guessed.

    `layout` "jsonl" (the same for "json"): rows of a JSONL file, or of a JSON list, with the prompt (a string or chat
    messages) in `prompt_field` and the answer (a string, or a list of them) in `response_field`. "aligned": `path` is a
    JSON list of answers, one to each row of the JSONL file `seeds`, whose prompts are in `prompt_field`; it may end
    early. Several paths are read one after the other. Several answers to one prompt are its samples, in file order.
    `match` "contains" (default) finds a recorded prompt inside the one asked, because most ways of asking put a task
    around it; two different ones inside one prompt are `ambiguous`, never a guess. "exact" wants the whole last
    message. `finish_field` names a column that says how the answer ended ("stop", "length"); `model` says who wrote the
    answers.
    """

    capabilities: frozenset[Capability] = frozenset({"generate"})
    rungs = 1

    def __init__(
        self,
        *,
        path: str | Sequence[str],
        layout: Literal["jsonl", "json", "aligned"] = "jsonl",
        prompt_field: str = "prompt",
        response_field: str = "response",
        seeds: str | None = None,
        match: Literal["contains", "exact"] = "contains",
        finish_field: str | None = None,
        model: str = "",
    ) -> None:
        if layout not in ("jsonl", "json", "aligned"):
            raise RecipeError(f"recorded teacher: no layout {layout!r}; known: jsonl, json, aligned")
        if (layout == "aligned") != (seeds is not None):
            raise RecipeError(
                "recorded teacher: `seeds` names the file that layout `aligned` follows; give both or neither"
            )
        self._paths = [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]
        self._layout, self._seeds, self._match, self._model = layout, Path(seeds) if seeds else None, match, model
        self._prompt_field, self._response_field, self._finish_field = prompt_field, response_field, finish_field
        self._answers: dict[str, list[Answer]] | None = None
        self._heads: dict[str, list[str]] = {}

    def identity(self) -> Identity:
        digest = hashlib.sha256()
        for path in [*self._paths, *([self._seeds] if self._seeds else [])]:
            digest.update(hashlib.sha256(_bytes(path)).digest())
        fields = (self._layout, self._prompt_field, self._response_field, self._match, self._finish_field or "")
        return Identity("recorded", self._model, revision=digest.hexdigest(), settings=(("fields", " ".join(fields)),))

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        for request in requests:
            yield Outcome(request, self._found(request))

    def _found(self, request: Request) -> Answer | Failure:
        answers = self._loaded()
        asked = _text(request.messages)
        prompt = asked if asked in answers else self._inside(asked)
        if isinstance(prompt, Failure):
            return prompt
        samples = answers[prompt]
        if request.sample_index >= len(samples):
            detail = (
                f"{len(samples)} answers are recorded for this prompt, number {request.sample_index + 1} was asked for"
            )
            return Failure("not_recorded", detail, "not_attempted")
        return samples[request.sample_index]

    def _inside(self, asked: str) -> str | Failure:
        """The one recorded prompt that is part of `asked`; where they nest, the longest."""
        found: set[str] = set()
        if self._match == "contains":
            for at in range(len(asked)):
                found.update(p for p in self._heads.get(asked[at : at + _HEAD], ()) if asked.startswith(p, at))
        longest = {prompt for prompt in found if not any(prompt != other and prompt in other for other in found)}
        if len(longest) > 1:
            return Failure(
                "ambiguous", f"{len(longest)} recorded prompts are part of the prompt asked", "not_attempted"
            )
        return longest.pop() if longest else Failure("not_recorded", "nobody recorded this prompt", "not_attempted")

    def _loaded(self) -> dict[str, list[Answer]]:
        if self._answers is None:
            self._answers = {}
            for prompt, answer in self._aligned() if self._layout == "aligned" else self._rows():
                self._answers.setdefault(prompt, []).append(answer)
            for prompt in self._answers:
                if len(prompt) >= _HEAD:
                    self._heads.setdefault(prompt[:_HEAD], []).append(prompt)
        return self._answers

    def _rows(self) -> Iterator[tuple[str, Answer]]:
        for path in self._paths:
            for number, row in enumerate(_json_rows(path), 1):
                prompt, response = (
                    _field(row, self._prompt_field, path, number),
                    _field(row, self._response_field, path, number),
                )
                finish = _finish(_field(row, self._finish_field, path, number)) if self._finish_field else "stop"
                for text in response if isinstance(response, list) else [response]:
                    yield _prompt_text(prompt, path, number), self._answer(text, finish, path, number)

    def _aligned(self) -> Iterator[tuple[str, Answer]]:
        assert self._seeds is not None
        prompts = [
            _prompt_text(_field(row, self._prompt_field, self._seeds, number), self._seeds, number)
            for number, row in enumerate(_json_rows(self._seeds), 1)
        ]
        texts = [(path, text) for path in self._paths for text in _json_rows(path)]
        if len(texts) > len(prompts):
            raise RecipeError(
                f"recorded teacher: {len(texts)} answers for the {len(prompts)} rows of {self._seeds}; give all the seeds"
            )
        for number, (prompt, (path, text)) in enumerate(zip(prompts, texts), 1):
            yield prompt, self._answer(text, "stop", path, number)

    def _answer(self, text: Any, finish: FinishReason, path: Path, number: int) -> Answer:
        if not isinstance(text, str):
            raise RecipeError(f"{path}, row {number}: the answer is a {type(text).__name__}, not text")
        return Answer(text, finish, served_model=self._model, output_tokens=len(text.split()), estimated=True)


def _text(messages: Prompt) -> str:
    return messages[-1].content.strip() if messages else ""


def _prompt_text(prompt: Any, path: Path, number: int) -> str:
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], dict):
        prompt = prompt[-1].get("content")
    if not isinstance(prompt, str):
        raise RecipeError(f"{path}, row {number}: the prompt is neither text nor a list of chat messages")
    return prompt.strip()


def _finish(value: Any) -> FinishReason:
    known: dict[str, FinishReason] = {
        "stop": "stop",
        "eos": "stop",
        "end_turn": "stop",
        "length": "length",
        "max_tokens": "length",
    }
    return known.get(str(value), "unknown")


def _field(row: Any, name: str, path: Path, number: int) -> Any:
    if not isinstance(row, dict) or name not in row:
        there = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise RecipeError(f"{path}, row {number}: no field {name!r}; there is: {there}")
    return row[name]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"recorded teacher: {path} cannot be read ({error.strerror}); name a file of answers"
        ) from error


def _json_rows(path: Path) -> list[Any]:
    """A JSON list, or one JSON value to a line."""
    text = _bytes(path).decode("utf-8-sig")
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise RecipeError(f"{path}: neither a JSON list nor one JSON value to a line ({error})") from error
