"""A local model as a teacher, white box: it answers, says how likely tokens are, and shows itself.

Any folder that `from_pretrained` loads, or a name on the hub. Shapes: B rows, T positions, K kept tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.files import replacing
from stillhouse.quiet import quiet
from stillhouse.records import Prompt
from stillhouse.render import Rendered, end_ids, fingerprint, pad_id, reading_of
from stillhouse.teachers.asking.answers import default_store
from stillhouse.teachers.asking.keys import derived_seed, request_key
from stillhouse.teachers.asking.prices import hourly_price
from stillhouse.teachers.base import Answer, Capability, Failure, Identity, Outcome, Request, TokenBeliefs
from stillhouse.teachers.forced import context, forced

if TYPE_CHECKING:
    import torch

__all__ = ["Teacher"]

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.json", "*.jinja", "*.model", "*.txt", "*.py")


class Teacher:
    """A model of the transformers library. `model` is a folder or a hub name, `revision` a commit of the latter.

    Prompts go through the model's own chat template; a model without one continues the plain text. An answer depends on
    its prompt and its own random numbers, drawn from the key of its request; float rounding lets the batch touch the
    last bits, so requests are batched in chunks of four times `batch_size`, fixed by position. `price` is `{per_hour}`,
    dollars for an hour in which it generates. Raises TeacherError where the model cannot be loaded.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "top_logprobs", "logits", "hidden_states"})
    rungs = 1

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 32,
        trust_remote_code: bool = False,
        price: Mapping[str, float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"transformers teacher: batch_size is 1 or more, not {batch_size}")
        self.chunk, self.hourly_usd = 4 * batch_size, hourly_price(price)
        self._name, self._revision, self._dtype, self._device = os.fspath(model), revision, dtype, device
        self._batch_size, self._trust = batch_size, trust_remote_code
        self._loaded: tuple[Any, Any] | None = None
        self._identity: Identity | None = None

    def identity(self) -> Identity:
        """Weights, tokenizer and template are known by their content: retrained weights are another teacher."""
        if self._identity is None:
            engine = ".".join(version("transformers").split(".")[:2])
            settings = (("dtype", self._dtype), ("engine", f"transformers {engine}"))
            self._identity = Identity(
                "hf-local", Path(self._name).name, revision=folder_digest(self._folder()), settings=settings
            )
        return self._identity

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        source = iter(requests)
        while chunk := list(islice(source, self.chunk)):
            groups: dict[tuple[float, float, int], list[Request]] = {}
            for request in chunk:
                sampling = request.sampling
                groups.setdefault((sampling.temperature, sampling.top_p, sampling.max_tokens), []).append(request)
            for group in groups.values():
                yield from self._answered(group)

    def module(self) -> Any:
        """The model, in eval mode and without gradients."""
        return self._load()[0]

    def tokenizer(self) -> Any:
        return self._load()[1]

    def tokenizer_fingerprint(self) -> str:
        return fingerprint(self.tokenizer())

    def top_logprobs(self, pairs: Iterable[tuple[Prompt, str]], *, k: int) -> Iterator[TokenBeliefs]:
        """Natural-log probabilities in float32 at temperature 1 of the `k` likeliest tokens at each place of the response.

        The end-of-turn token has a place too. In the order of `pairs`; raises RecipeError where a pair does not fit the
        model.
        """
        source = iter(pairs)
        while chunk := list(islice(source, self.chunk)):
            whole = reading_of(self.module()).whole
            rendered = [whole(self.tokenizer(), prompt, response) for prompt, response in chunk]
            yield from self._beliefs(rendered, k)

    def _answered(self, requests: list[Request]) -> Iterator[Outcome]:
        from stillhouse.generate import generate_sorted

        model, tokenizer = self._load()
        prompts, fitting = [], []
        for request in requests:
            ids = reading_of(model).prompt(tokenizer, request.messages)
            if self._room(ids) < 1:
                detail = f"the prompt has {len(ids)} tokens, the context of the model {context(model)}"
                yield Outcome(request, Failure("context_overflow", detail))
                continue
            prompts.append(ids)
            fitting.append(request)
        if not fitting:
            return
        sampling = fitting[0].sampling
        answers = generate_sorted(
            model,
            prompts,
            batch_size=self._batch_size,
            seeds=[derived_seed(request_key(self.identity(), request)) for request in fitting],
            max_new_tokens=sampling.max_tokens,
            eos_ids=end_ids(tokenizer, model.generation_config),
            pad_id=pad_id(tokenizer),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        for index, generated in answers:
            yield Outcome(
                fitting[index], self._answer(fitting[index], prompts[index], generated.ids, generated.finished)
            )

    def _answer(self, request: Request, prompt: list[int], ids: list[int], finished: bool) -> Answer:
        before = [] if self.module().config.is_encoder_decoder else prompt
        text = _decoded(self.tokenizer(), before, ids[:-1] if finished else ids)
        cuts = [text.index(stop) for stop in request.sampling.stop if stop in text]
        if cuts:
            text, finished = text[: min(cuts)], True
        served = Path(self._name).name
        return Answer(text, "stop" if finished else "length", "", served, len(prompt), len(ids))

    def _room(self, prompt: Sequence[int]) -> int:
        return context(self.module()) - len(prompt)

    def _beliefs(self, rendered: list[Rendered], k: int) -> Iterator[TokenBeliefs]:
        model, tokenizer = self._load()
        vocabulary = model.get_output_embeddings().weight.shape[0]
        if not 1 <= k <= vocabulary:
            raise RecipeError(f"top_logprobs: k is 1 to {vocabulary} for this model, not {k}")

        def top(row: Rendered, logits_TV: torch.Tensor, _: Any) -> TokenBeliefs:
            return _top(logits_TV, row.response, k)

        yield from forced(model, tokenizer, rendered, top, batch_size=self._batch_size)

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

            folder, device = self._folder(), _device(self._device)
            try:
                with quiet():
                    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self._trust)
                    config = AutoConfig.from_pretrained(folder, trust_remote_code=self._trust)
                    self._refuse_scorer(config)
                    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
                    model = kind.from_pretrained(folder, dtype=self._dtype, trust_remote_code=self._trust)
            except (OSError, ValueError) as error:
                raise TeacherError(f"the model {self._name} cannot be loaded: {_first_line(error)}") from error
            placed: Any = model
            if self._dtype == "auto" and device == "cpu" and model.dtype == torch.float16:
                placed = placed.float()  # a processor computes halves slower than floats, and less exactly
            placed = placed.to(torch.device(device)).eval().requires_grad_(False)
            self._loaded = (placed, tokenizer)
        return self._loaded

    def _refuse_scorer(self, config: Any) -> None:
        if any("SequenceClassification" in name for name in config.architectures or []):
            raise TeacherError(
                f"the model {self._name} scores and does not write (a reward model, a classifier); it judges as "
                "preferences.reward_model"
            )

    def _folder(self) -> Path:
        """The folder itself, or the hub's snapshot of the model, fetched where it is not there yet."""
        if Path(self._name).is_dir():
            return Path(self._name)
        if os.sep in self._name and (self._name.startswith((".", "~", os.sep)) or self._name.count("/") > 1):
            raise TeacherError(
                f"the teacher's model {self._name!r} is no folder; name one that from_pretrained loads, or a hub model"
            )
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self._name, revision=self._revision, allow_patterns=list(_WEIGHTS)))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            raise TeacherError(
                f"the teacher's model {self._name!r} is neither a folder nor can it be fetched from the hub: {_first_line(error)}"
            ) from error


def _top(logits_TV: torch.Tensor, response: list[int], k: int) -> TokenBeliefs:
    top_TK, ids_TK = logits_TV.float().log_softmax(-1).topk(k, dim=-1)
    return TokenBeliefs(
        np.asarray(response, dtype=np.int32), ids_TK.cpu().numpy().astype(np.int32), top_TK.cpu().numpy()
    )


def _decoded(tokenizer: Any, prompt: list[int], ids: list[int]) -> str:
    """The text of an answer. What continues a plain text keeps the blank it begins with, which decoding alone would
    drop.
    """
    if getattr(tokenizer, "chat_template", None) is not None:
        return tokenizer.decode(ids, skip_special_tokens=True)
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    whole = tokenizer.decode([*prompt, *ids], skip_special_tokens=True)
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(ids, skip_special_tokens=True)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def folder_digest(folder: Path) -> str:
    """sha256 over the content of the files that make the model, by name; hashes of unchanged files are remembered."""
    files = sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    if not any(path.suffix in (".safetensors", ".bin", ".pt") for path in files):
        raise TeacherError(f"the folder {folder} holds no weights (*.safetensors); name one that from_pretrained loads")
    whole = hashlib.sha256()
    for path, digest in zip(files, _file_hashes(files)):
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()


def _file_hashes(files: list[Path]) -> list[str]:
    memory = default_store() / "hashes.json"
    try:
        known: dict[str, str] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    hashes, fresh = [], False
    for path in files:
        state = path.stat()
        mark = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
        if mark not in known:
            with path.open("rb") as file:
                known[mark] = hashlib.file_digest(file, "sha256").hexdigest()
            fresh = fresh or state.st_size > 1 << 20
        hashes.append(known[mark])
    if fresh:
        _remember(memory, known)
    return hashes


def _remember(memory: Path, known: dict[str, str]) -> None:
    """A lost memory costs time, not answers: where it cannot be written, the files are read again next time."""
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memory) as part:
            part.write_text(json.dumps(known), encoding="utf-8")
