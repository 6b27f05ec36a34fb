"""The student: loaded from a folder or a hub name, with or without LoRA, and saved so that transformers can load it."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.embedding import pooling_of, write_layout
from stillhouse.errors import RecipeError, nearest
from stillhouse.quiet import quiet
from stillhouse.render import ALONE, Reading, encodes, end_ids, pad_id, reading_of
from stillhouse.train.batch import SCORERS, WRITERS
from stillhouse.train.quantise import is_made, settled, to_dense, to_four_bits
from stillhouse.train.scoring import require_scoring_head, scoring_head

# what a recipe may write under `student: {lora: ...}`, and what peft calls it
LORA_KNOBS = {
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "dora": "use_dora",
    "rslora": "use_rslora",
    "init": "init_lora_weights",
}
BASE = "base"  # and what its frozen weights are stored in
KINDS = (*WRITERS, *SCORERS)
ADAPTER = "adapter"
_MEANING = {
    "causal_lm": "causal language model",
    "seq2seq": "encoder-decoder",
    **dict.fromkeys(SCORERS, "model that scores sequences"),
    "encoder": "model that encodes",
}


@dataclass(frozen=True, slots=True)
class Student:
    """A model and its tokenizer. Training changes the model in place.

    `kind` causal_lm and seq2seq (an encoder-decoder) write; reward and reranker give a prompt with an answer one number,
    classifier a prompt one for each of its `labels`, encoder any text a vector.
    """

    model: Any
    tokenizer: Any
    kind: str = "causal_lm"
    labels: tuple[str, ...] = ()
    pooling: str = "mean"  # of kind encoder

    @property
    def reading(self) -> Reading:
        """How it is given text."""
        return ALONE if self.kind == "encoder" else reading_of(self.model)


def load_student(
    path_or_name: str | Path,
    *,
    kind: str = "causal_lm",
    lora: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    dtype: str = "float32",
    seed: int = 0,
    adapt: Callable[[Any, Any], Any] | None = None,
    pooling: str | None = None,
) -> Student:
    """The model and tokenizer of a folder, a hub name, or "pocket" (the embedded base student).

    `lora` adds an adapter (`{rank: 32}`; alpha defaults to twice the rank, targets to every linear layer but the head)
    whose first weights come from `seed`; with `base: nf4` what is below it takes four bits a weight (QLoRA). `labels`
    are the classes of a classifier, `pooling` what makes one vector of an encoder's states (by default what its folder
    says, else the mean). `adapt` gives what the model becomes, before any adapter, given its tokenizer. Raises RecipeError
    where that is no model, or for a knob nobody knows.
    """
    if kind not in KINDS:
        raise RecipeError(f"student.kind: {kind!r} cannot be trained; {nearest(kind, KINDS)}")
    import torch
    from transformers import AutoTokenizer

    if (kind == "classifier") != bool(labels):
        raise RecipeError("student.labels: a student of kind classifier needs its classes here, and no other takes any")
    source = _source(str(path_or_name))
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise RecipeError(f"student.dtype: {dtype!r}; {nearest(dtype, ('float32', 'bfloat16', 'float16'))}")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = _loaded(source, kind, tokenizer, labels, getattr(torch, dtype), seed)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"student.model: {source!r} cannot be loaded as a {_MEANING[kind]}: {reason}; "
            "give a folder that from_pretrained loads, a model's name, or pocket"
        ) from error
    if kind in SCORERS and kind != "encoder":
        require_scoring_head(model, kind)
    if adapt is not None:
        model = adapt(model, tokenizer)
    pooling = pooling or (pooling_of(Path(source)) if kind == "encoder" else None) or "mean"
    return Student(model if lora is None else _with_lora(model, lora, seed), tokenizer, kind, tuple(labels), pooling)


def save_student(student: Student, folder: str | Path) -> Path:
    """Writes what the library's `from_pretrained(folder)` loads; a LoRA is merged, and kept in `adapter/` too.

    Of a student that learned to be quantised the rounded weights are written, in ordinary numbers; of one with experts those
    that the adapters made.

    The generation settings get every id that ends a turn, so that the saved student stops where it learned to.
    """
    folder = Path(folder)
    model = student.model
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder / ADAPTER)
        model = deepcopy(model)
        to_dense(model)
        model = model.merge_and_unload()
    rounded = {"state_dict": settled(model)} if is_made(model) else {}
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = list(end_ids(student.tokenizer, model.generation_config))
        model.generation_config.pad_token_id = pad_id(student.tokenizer)
    with quiet():
        model.save_pretrained(folder, **rounded)
    student.tokenizer.save_pretrained(folder)
    if student.kind == "encoder":
        longest = min(model.config.max_position_embeddings, student.tokenizer.model_max_length)
        write_layout(folder, student.pooling, model.config.hidden_size, longest)
    return folder


def _source(path_or_name: str) -> str:
    if path_or_name == "pocket":
        from stillhouse.pocket import student_path

        return str(student_path())
    folder = Path(path_or_name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise RecipeError(
            f"student.model: {path_or_name} is not a model folder: it has no config.json; "
            "give the folder that save_pretrained wrote"
        )
    if not folder.exists() and (path_or_name.startswith((".", "/", "~")) or path_or_name.count("/") > 1):
        raise RecipeError(f"student.model: there is no folder {path_or_name}; give a model folder or a model's name")
    return str(folder) if folder.exists() else path_or_name


def _with_lora(model: Any, knobs: Mapping[str, Any], seed: int) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    for name in knobs:
        if name not in (*LORA_KNOBS, BASE):
            raise RecipeError(f"student.lora: no knob {name!r}; {nearest(name, (*LORA_KNOBS, BASE))}")
    given = {LORA_KNOBS[name]: value for name, value in knobs.items() if name != BASE}
    if (base := knobs.get(BASE)) is not None:
        if base != "nf4":
            raise RecipeError(f"student.lora.base: {base!r}; write nf4 (four bits a weight), or leave it out")
        to_four_bits(model)
    rank = given.setdefault("r", 16)
    given.setdefault("lora_alpha", 2 * rank)
    given.setdefault("target_modules", "all-linear")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        writes = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
        task = "SEQ_CLS" if encodes(model) or scoring_head(model) is not None else writes
        task = task if model.get_output_embeddings() is not None or task == "SEQ_CLS" else "FEATURE_EXTRACTION"
        return get_peft_model(model, LoraConfig(task_type=task, **given))


def _loaded(source: str, kind: str, tokenizer: Any, labels: Sequence[str], dtype: Any, seed: int) -> Any:
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    if kind == "encoder":
        return AutoModel.from_pretrained(source, dtype=dtype)
    if kind == "seq2seq":
        return AutoModelForSeq2SeqLM.from_pretrained(source, dtype=dtype)
    if kind == "causal_lm":
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    told: dict[str, Any] = {"num_labels": max(len(labels), 1), "pad_token_id": pad_id(tokenizer)}
    if labels:
        told |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # a model that wrote has no scoring head yet: its first weights are drawn
        return AutoModelForSequenceClassification.from_pretrained(source, dtype=dtype, **told)
