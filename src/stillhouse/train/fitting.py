"""What the trainer settles before its first step: which layers are compared, whether logits are left unmade, whose tokens."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from stillhouse.errors import RecipeError
from stillhouse.render import encodes
from stillhouse.train.batch import Layer, token_by_token
from stillhouse.train.forward import has_plain_head
from stillhouse.train.online import OnlineTeacher
from stillhouse.train.rollout import Rollouts
from stillhouse.train.student import Student
from stillhouse.train.terms import Term

# below it the logits of a batch fit a cache or two, and making them at once is faster
_LARGE_VOCABULARY = 4096


def check_tokens(terms: Sequence[Term], rollouts: Rollouts | None, online: Mapping[str, OnlineTeacher]) -> None:
    """Refuses what a teacher with another tokenizer cannot do."""
    together = rollouts.teacher if rollouts is not None else None
    if together is not None and not online[together].same_tokens:
        raise RecipeError(
            f"train.rollouts.teacher: {together!r} has another tokenizer than the student and cannot draw tokens with it; "
            "take a teacher of the student's family, or let the student answer alone"
        )
    for term in terms:
        for name in term.teachers:
            if name in online and not online[name].same_tokens and (needs := token_by_token(term.wants())):
                raise RecipeError(
                    f"train: teacher {name!r} and the student cut text with different tokenizers, and objective "
                    f"{term.name} needs {', '.join(sorted(needs))}, token by token; use a divergence, an objective of "
                    "cross_tokenizer, or the teacher's text alone"
                )


def check_head(model: Any, terms: Sequence[Term]) -> None:
    """Refuses to ask an encoder, which sees a whole answer at once, for a score after each step of it."""
    for term in terms:
        if encodes(model) and "student_step_logits_N" in term.wants():
            raise RecipeError(
                f"train: objective {term.name} scores an answer step by step, and {type(model).__name__} reads all of it at "
                "once; take a decoder (Llama, Qwen, GPT-2, ...)"
            )


def compared_layers(terms: Sequence[Term]) -> dict[str, tuple[Layer, ...]]:
    """Which hidden states are compared, of the student and of each teacher."""
    found: dict[str, set[Layer]] = {"student": set()}
    for term in terms:
        found["student"] |= term.reads(0)
        if read := term.reads(1):
            found.setdefault(term.teachers[0], set()).update(read)
    return {name: tuple(sorted(layers, key=str)) for name, layers in found.items()}


def trained_weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def worth_fusing(model: Any, terms: Sequence[Term]) -> bool:
    """Logits are left unmade where they are large, and where every objective is known to do without them."""
    ours = all(_module_of(term.objective).startswith("stillhouse.objectives.") for term in terms)
    return ours and model.config.get_text_config(decoder=True).vocab_size >= _LARGE_VOCABULARY and has_plain_head(model)


def _module_of(objective: Any) -> str:
    objective = getattr(objective, "func", objective)
    return (type(objective) if isinstance(objective, nn.Module) else objective).__module__


@contextmanager
def lent(model: Any, objectives: Sequence[Any]) -> Iterator[None]:
    """The model with the objectives' own parameters hung on it, so that they are trained and shared like its own."""
    use_cache = getattr(model.config, "use_cache", None)
    names = {f"stillhouse_objective_{number}": module for number, module in enumerate(modules_of(objectives))}
    for name, module in names.items():
        model.add_module(name, module)
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)
        if use_cache is not None:
            model.config.use_cache = use_cache
        model.eval()


@contextmanager
def own_names(model: Any) -> Iterator[None]:
    """Weights are saved under the names that the model has for them.

    The library writes those of a mixture of experts under the hub's names, and a trainer that goes on from there does not find
    them again, without a word (transformers 5.23).
    """
    held = vars(model).get("_weight_conversions")
    model._weight_conversions = []
    try:
        yield
    finally:
        if held is None:
            del model._weight_conversions
        else:
            model._weight_conversions = held


def modules_of(objectives: Any) -> list[nn.Module]:
    return [objective for objective in objectives if isinstance(objective, nn.Module)]


def longest(student: Student, max_length: int | None) -> int | None:
    window = getattr(student.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if window is not None and (
        encodes(student.model) or student.kind == "encoder"
    ):  # RoBERTa's first two positions hold no token
        window = min(window, student.tokenizer.model_max_length)
    if max_length is not None and window is not None and max_length > window:
        raise RecipeError(f"train.max_length: {max_length} is more than the student's context of {window} tokens")
    return max_length if max_length is not None else window
