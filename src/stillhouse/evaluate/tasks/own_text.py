"""How far a student strays from its teacher on text of its own: what perplexity on other people's text does not show.

Legend: B continuations of a batch, T tokens with their prefix, V vocabulary.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.evaluate import OwnText
from stillhouse.evaluate.tasks.language_model import log_probs, padded, windows_of

__all__ = ["own_text"]


def own_text(
    student: Any,
    tokenizer: Any,
    teacher: Any,
    *,
    path: Path,
    prefix: int = 32,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    limit: int | None = None,
    field: str = "text",
) -> list[OwnText]:
    """KL(student || teacher) and the teacher's likelihood of continuations that the student draws; lower is nearer.

    Each held-out row of `path` (as `language_model` reads it) gives its first `prefix` tokens; the student goes on for at
    most `max_new_tokens`. The KL is taken over the whole vocabulary at every drawn position. With it the share of
    distinct runs of three tokens: a student that repeats itself can be near its teacher and useless. Raises
    RecipeError without a teacher, or where the vocabularies differ. Source: methods 3.3 and 3.5 (MiniLLM, GKD).
    """
    import torch

    from stillhouse.generate import answering, generate_sorted
    from stillhouse.render import end_ids, pad_id

    if teacher is None:
        raise RecipeError("evaluate.own_text: needs a teacher to be near to; write `teacher: <name>` beside it")
    prompts = list(windows_of(Path(path), tokenizer, prefix, limit, field))
    if not prompts:
        raise RecipeError(f"{path}: no text of two tokens or more to continue")
    drawn = generate_sorted(
        student,
        prompts,
        batch_size=batch_size,
        seeds=[seed * len(prompts) + number for number in range(len(prompts))],
        max_new_tokens=max_new_tokens,
        eos_ids=end_ids(tokenizer, getattr(student, "generation_config", None)),
        pad_id=pad_id(tokenizer),
        temperature=temperature,
    )
    made = sorted((number, generated.ids) for number, generated in drawn)
    rows: list[OwnText] = []
    with ExitStack() as stack, torch.inference_mode():
        for model in (student, teacher):
            stack.enter_context(answering(model))
        for start in range(0, len(made), batch_size):
            rows += _scored(student, teacher, prompts, made[start : start + batch_size])
    return rows


def _scored(student: Any, teacher: Any, prompts: list[list[int]], made: list[tuple[int, list[int]]]) -> list[OwnText]:
    ids_BT, mask_BT = padded([prompts[number] + new for number, new in made], next(student.parameters()).device)
    student_BTV, teacher_BTV = log_probs(student, ids_BT, mask_BT), log_probs(teacher, ids_BT, mask_BT)
    if teacher_BTV.shape[-1] != student_BTV.shape[-1]:
        raise RecipeError(
            f"evaluate.own_text: the teacher knows {teacher_BTV.shape[-1]} tokens and the student "
            f"{student_BTV.shape[-1]}; this needs one tokenizer"
        )
    kl_BT = (student_BTV.exp() * (student_BTV - teacher_BTV)).sum(-1)
    nll_BT = -teacher_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
    rows = []
    for row, (number, new) in enumerate(made):
        # the token at position t is predicted at t - 1
        own = slice(len(prompts[number]) - 1, len(prompts[number]) - 1 + len(new))
        rows.append(
            OwnText(str(number), len(new), float(nll_BT[row, own].sum()), float(kl_BT[row, own].sum()), _distinct(new))
        )
    return rows


def _distinct(ids: list[int]) -> float:
    runs = list(zip(ids, ids[1:], ids[2:]))
    return len(set(runs)) / len(runs) if runs else float("nan")
