"""vLLM as an engine in this process: batches of answers from local weights, and how likely the tokens of responses are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.records import Prompt
from stillhouse.render import fingerprint, render, render_prompt
from stillhouse.teachers import transformers
from stillhouse.teachers.asking.beliefs import own_beliefs, packed, read_prompt_logprobs
from stillhouse.teachers.asking.keys import derived_seed, request_key
from stillhouse.teachers.asking.prices import hourly_price
from stillhouse.teachers.asking.wire import Fault
from stillhouse.teachers.base import (
    Answer,
    Capability,
    Failure,
    FinishReason,
    Identity,
    Outcome,
    Request,
    TokenBeliefs,
)

__all__ = ["Teacher"]

_FINISH: dict[Any, FinishReason] = {"stop": "stop", "length": "length"}  # "abort" and anything new stay unknown


class Teacher:
    """Local weights in vLLM's engine (`pip install stillhouse[vllm]`, a GPU). `model` is a folder or a hub name.

    Prompts go through the model's own chat template here and to the engine as tokens; what it says it read must be
    those tokens. A prompt that does not fit is set apart beforehand, because one of them aborts a whole batch. Each
    sampled answer has its own seed, made from its key; batching still touches the last bits, so it is done in chunks
    fixed by position. `engine` is passed to `vllm.LLM` as it stands and is part of the key. `price` is `{per_hour}`,
    dollars for an hour in which it generates. Raises TeacherError where vLLM is missing or cannot load the model.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "top_logprobs"})
    rungs = 1
    chunk = 1024
    tells = True

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        max_logprobs: int = 20,
        engine: Mapping[str, Any] | None = None,
        price: Mapping[str, float] | None = None,
    ) -> None:
        self.hourly_usd = hourly_price(price)
        self._model, self._revision, self._dtype, self._max_logprobs = model, revision, dtype, max_logprobs
        self._engine, self._llm = dict(engine or {}), None
        self._weights = transformers.Teacher(model=model, revision=revision, dtype=dtype)

    def identity(self) -> Identity:
        """Weights, tokenizer and template by their content; the engine by its minor version and its settings."""
        weights = self._weights.identity()
        settings = {"dtype": self._dtype, "engine": f"vllm {_minor()}"}
        settings |= {name: repr(value) for name, value in self._engine.items()}
        return Identity(
            "vllm-offline", weights.model, revision=weights.revision, settings=tuple(sorted(settings.items()))
        )

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        source = iter(requests)
        while chunk := list(islice(source, self.chunk)):
            yield from self._answered(chunk)

    def tokenizer_fingerprint(self) -> str:
        return fingerprint(self._tokenizer())

    def top_logprobs(self, pairs: Iterable[tuple[Prompt, str]], *, k: int) -> Iterator[TokenBeliefs]:
        """Natural-log probabilities of the `k` likeliest tokens at each place of the response, in the order of `pairs`.

        Raises RecipeError where `k` is more than `max_logprobs` or a pair does not fit, TeacherError where the engine
        tells of other tokens than were sent.
        """
        if not 1 <= k <= self._max_logprobs:
            raise RecipeError(f"top_logprobs: k is 1 to {self._max_logprobs} (the teacher's max_logprobs), not {k}")
        source = iter(pairs)
        while chunk := list(islice(source, self.chunk)):
            rows = [render(self._tokenizer(), prompt, response) for prompt, response in chunk]
            if (longest := max(len(row.ids) for row in rows)) >= self._room():
                raise RecipeError(f"top_logprobs: a row of {longest} tokens leaves no room in {self._room()}")
            asked = self._params(temperature=0.0, max_tokens=1, prompt_logprobs=k)
            for row, output in zip(rows, self._generated([row.ids for row in rows], [asked] * len(rows))):
                beliefs = read_prompt_logprobs(_told(output.prompt_logprobs), row.ids, row.start, k)
                if isinstance(beliefs, Fault):
                    raise TeacherError(f"the vllm engine of {self._model!r}: {beliefs.detail}")
                yield beliefs

    def _answered(self, requests: list[Request]) -> Iterator[Outcome]:
        prompts, fitting = [], []
        for request in requests:
            ids = render_prompt(self._tokenizer(), request.messages)
            if len(ids) >= self._room():
                detail = f"the prompt has {len(ids)} tokens, the context of the engine {self._room()}"
                yield Outcome(request, Failure("context_overflow", detail))
                continue
            prompts.append(ids)
            fitting.append(request)
        identity = self.identity()
        params = [self._sampled(request, request_key(identity, request)) for request in fitting]
        for request, output in zip(fitting, self._generated(prompts, params)):
            yield Outcome(request, self._answer(output), logprobs=self._believed(request, output))

    def _believed(self, request: Request, output: Any) -> bytes | None:
        """Of an answer that was asked for with log-probs. Raises TeacherError where the engine tells of other tokens."""
        if not request.top_logprobs:
            return None
        (choice,) = output.outputs
        read = render(self._tokenizer(), request.messages, choice.text).response
        told = own_beliefs(_told(choice.logprobs), list(choice.token_ids), read, request.top_logprobs)
        if isinstance(told, Fault):
            raise TeacherError(f"the vllm engine of {self._model!r}: {told.detail}")
        return None if told is None else packed(told)

    def _sampled(self, request: Request, key: str) -> Any:
        sampling, k = request.sampling, request.top_logprobs
        if k > self._max_logprobs:
            raise RecipeError(f"top_logprobs: k is 1 to {self._max_logprobs} (the teacher's max_logprobs), not {k}")
        return self._params(
            logprobs=k or None,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            seed=derived_seed(key) if sampling.temperature > 0 else None,
        )

    def _answer(self, output: Any) -> Answer:
        (choice,) = output.outputs
        finish = _FINISH.get(choice.finish_reason, "unknown")
        return Answer(
            choice.text,
            finish,
            served_model=self.identity().model,
            input_tokens=len(output.prompt_token_ids),
            output_tokens=len(choice.token_ids),
        )

    def _generated(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> list[Any]:
        """The engine's outputs, one to a prompt and about the very tokens that were sent."""
        if not prompts:
            return []
        given = [{"prompt_token_ids": ids} for ids in prompts]
        outputs = self._loaded().generate(given, list(params), use_tqdm=False)
        read = [list(output.prompt_token_ids) for output in outputs]
        if read != [list(ids) for ids in prompts]:
            raise TeacherError(f"the vllm engine of {self._model!r} read other tokens than were sent: nothing is kept")
        return outputs

    def _loaded(self) -> Any:
        if self._llm is None:
            vllm = _vllm()
            try:
                self._llm = vllm.LLM(
                    model=self._model, revision=self._revision, dtype=self._dtype, max_logprobs=self._max_logprobs,
                    **self._engine,
                )  # fmt: skip
            except (OSError, ValueError, RuntimeError) as error:
                first = str(error).strip().split("\n")[0]
                raise TeacherError(f"vllm cannot load the model {self._model!r}: {first}") from error
        return self._llm

    def _tokenizer(self) -> Any:
        return self._loaded().get_tokenizer()

    def _room(self) -> int:
        return int(self._loaded().llm_engine.model_config.max_model_len)

    def _params(self, **settings: Any) -> Any:
        return _vllm().SamplingParams(**settings)


def _told(entries: Any) -> Any:
    """The engine's prompt log-probs in the words of the wire: one {token: {logprob}} to a token, None for the first."""
    if entries is None:
        return None
    return [
        entry and {str(token): {"logprob": each.logprob} for token, each in entry.items()} for entry in list(entries)
    ]


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise TeacherError(_MISSING) from error
    return vllm


_MISSING = (
    "backend vllm_offline needs vLLM: pip install 'stillhouse[vllm]' on a machine with a GPU, or use transformers"
)


def _minor() -> str:
    try:
        return ".".join(version("vllm").split(".")[:2])
    except PackageNotFoundError as error:
        raise TeacherError(_MISSING) from error
