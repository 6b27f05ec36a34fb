"""How well a student models held-out text, and how close it is to its teacher on it.

Legend: B windows of a batch, T tokens of a window, V vocabulary.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.evaluate import WindowScore

__all__ = ["language_model"]


def language_model(
    student: Any,
    tokenizer: Any,
    teacher: Any = None,
    *,
    path: Path,
    window: int = 256,
    batch_size: int = 16,
    limit: int | None = None,
    field: str = "text",
) -> list[WindowScore]:
    """Likelihood of held-out text per window; with a teacher also KL(teacher || student) and top-1 agreement.

    A `.txt` file is one stream cut into windows of `window` tokens; of a JSON or JSONL file each row's `field` is a
    window, cut to its first `window` tokens. Windows are the items that intervals are taken over; perplexity is
    exp(sum of nll / sum of tokens). `student` and `teacher` are causal models over the same vocabulary, left in the
    mode they came in. Raises RecipeError where the vocabularies differ. Source: methods 3.5.
    """
    import torch

    from stillhouse.generate import answering

    windows = list(windows_of(path, tokenizer, window, limit, field))
    if not windows:
        raise RecipeError(f"{path}: no text of two tokens or more to evaluate on")
    rows: list[WindowScore] = []
    with ExitStack() as stack, torch.inference_mode():
        for model in (student, teacher) if teacher is not None else (student,):
            stack.enter_context(answering(model))
        for start in range(0, len(windows), batch_size):
            rows.extend(_scored(student, teacher, windows[start : start + batch_size], start))
    return [replace(row, text=tokenizer.decode(ids, skip_special_tokens=True)) for row, ids in zip(rows, windows)]


def windows_of(path: Path, tokenizer: Any, window: int, limit: int | None, field: str) -> Iterator[list[int]]:
    """Token ids of at least two tokens each, begun with the tokenizer's BOS where it has one."""
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    made = 0
    for ids in _token_streams(Path(path), tokenizer, field, window - len(bos)):
        if limit is not None and made >= limit:
            return
        if len(bos) + len(ids) >= 2:
            made += 1
            yield bos + ids


def _token_streams(path: Path, tokenizer: Any, field: str, size: int) -> Iterator[list[int]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".json", ".jsonl"):
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines() if line]
        )
        for row in rows:
            yield tokenizer(row if isinstance(row, str) else row[field], add_special_tokens=False, verbose=False)[
                "input_ids"
            ][:size]
    else:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids), size):
            yield ids[start : start + size]


def padded(windows: list[list[int]], device: Any) -> tuple[Any, Any]:
    """Token ids and the mask of the real ones, both [B, T]."""
    import torch

    longest = max(map(len, windows))
    ids_BT = torch.zeros(len(windows), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(windows), longest, dtype=torch.long)
    for row, ids in enumerate(windows):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        mask_BT[row, : len(ids)] = 1
    return ids_BT.to(device), mask_BT.to(device)


def _scored(student: Any, teacher: Any, windows: list[list[int]], start: int) -> Iterator[WindowScore]:
    ids_BT, mask_BT = padded(windows, next(student.parameters()).device)
    real_BT = mask_BT[:, 1:].bool()
    student_BTV = log_probs(student, ids_BT, mask_BT)
    nll_B = nll_of(student_BTV, ids_BT, real_BT)
    tokens_B = real_BT.sum(-1)
    if teacher is None:
        for b in range(len(windows)):
            yield WindowScore(str(start + b), int(tokens_B[b]), float(nll_B[b]))
        return
    teacher_BTV = log_probs(teacher, ids_BT, mask_BT)
    if teacher_BTV.shape[-1] != student_BTV.shape[-1]:
        raise RecipeError(
            f"the teacher knows {teacher_BTV.shape[-1]} tokens and the student {student_BTV.shape[-1]}; "
            "agreement with a teacher needs one tokenizer"
        )
    teacher_nll_B = nll_of(teacher_BTV, ids_BT, real_BT)
    kl_B = ((teacher_BTV.exp() * (teacher_BTV - student_BTV)).sum(-1) * real_BT).sum(-1)
    agree_B = ((teacher_BTV.argmax(-1) == student_BTV.argmax(-1)) & real_BT).sum(-1)
    for b in range(len(windows)):
        yield WindowScore(
            str(start + b), int(tokens_B[b]), float(nll_B[b]), float(teacher_nll_B[b]), float(kl_B[b]), int(agree_B[b])
        )


def log_probs(model: Any, ids_BT: Any, mask_BT: Any) -> Any:
    return model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, :-1].double().log_softmax(-1)


def nll_of(log_probs_BTV: Any, ids_BT: Any, real_BT: Any) -> Any:
    return -(log_probs_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0] * real_BT).sum(-1)
