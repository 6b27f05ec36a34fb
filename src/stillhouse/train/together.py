"""Student and teacher answer together, token by token: MiniLLM's mixture and speculative distillation.

Shapes: B rows, V vocabulary. Both read the same new tokens, each after its own prompt.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.generate import Batch, answering, inverse_cdf


def generate_together(
    student: Any,
    teacher: Any,
    prompts: Sequence[Sequence[int]],
    teacher_prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    temperature: float = 1.0,
    share: float = 0.0,
    top_k: int = 0,
) -> list[tuple[list[int], np.ndarray]]:
    """The new tokens of each row, and the natural log of the probability with which each of them was drawn.

    `share`: each token comes from share * teacher + (1 - share) * student (MiniLLM, arXiv 2306.08543). `top_k`: the
    student proposes, and what is not among the teacher's `top_k` likeliest is drawn anew by the teacher (speculative
    distillation, arXiv 2410.11325). `temperature` is the student's.
    """
    if not prompts:
        return []
    if temperature <= 0:
        raise RecipeError("train.rollouts.temperature: sampling together with a teacher needs one above 0, e.g. 1.0")
    draws = [np.random.Generator(np.random.Philox(key=seed % 2**64)) for seed in seeds]
    uniform = np.stack([draw.random((2, max_new_tokens), dtype=np.float32) for draw in draws])
    uniform_B2T = torch.from_numpy(uniform).to(student.device)
    logprobs = np.zeros((len(prompts), max_new_tokens), np.float32)
    with answering(student), answering(teacher), torch.inference_mode():
        mine = Batch(student, prompts, max_new_tokens, eos_ids, pad_id)
        theirs = Batch(teacher, teacher_prompts, max_new_tokens, eos_ids, pad_id)
        mine.limit_B = theirs.limit_B = torch.minimum(mine.limit_B, theirs.limit_B.to(mine.limit_B.device))
        while mine.at_work:
            q_BV, p_BV = _same_width(mine.next_logits().float() / temperature, theirs.next_logits().float())
            first_B, second_B = uniform_B2T[mine.rows, 0, mine.step], uniform_B2T[mine.rows, 1, mine.step]
            if top_k:
                next_B, said_B = _speculated(q_BV, p_BV, first_B, second_B, top_k)
            else:
                mixed_BV = share * p_BV + (1 - share) * q_BV
                next_B = inverse_cdf(mixed_BV, first_B)
                said_B = mixed_BV.gather(-1, next_B[:, None])[:, 0]
            logprobs[mine.rows.cpu().numpy(), mine.step] = said_B.log().cpu().numpy()
            mine.take(next_B)
            theirs.take(next_B)
    answers = [answer.ids for answer in mine.answers()]
    return [(ids, logprobs[row, : len(ids)].copy()) for row, ids in enumerate(answers)]


def _same_width(student_BV: Tensor, teacher_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities over the ids that both have: heads of one tokenizer may be padded differently."""
    width = min(student_BV.shape[-1], teacher_BV.shape[-1])
    return student_BV[:, :width].softmax(-1), teacher_BV[:, :width].softmax(-1).to(student_BV.device)


def _speculated(q_BV: Tensor, p_BV: Tensor, first_B: Tensor, second_B: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    proposed_B = inverse_cdf(q_BV, first_B)
    allowed_BV = torch.zeros_like(p_BV).scatter_(-1, p_BV.topk(min(top_k, p_BV.shape[-1]), -1).indices, 1.0)
    kept_B = allowed_BV.gather(-1, proposed_B[:, None])[:, 0] > 0
    next_B = torch.where(kept_B, proposed_B, inverse_cdf(p_BV, second_B))
    # kept as the student's own, or, with the chance that its proposal was refused, drawn by the teacher
    refused_B = (q_BV * (1 - allowed_BV)).sum(-1)
    chance_BV = q_BV * allowed_BV + refused_B[:, None] * p_BV
    return next_B, chance_BV.gather(-1, next_B[:, None])[:, 0]
