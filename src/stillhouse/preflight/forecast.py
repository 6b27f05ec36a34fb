"""What a training will take on this machine: time measured on a few rows, memory and disk counted."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stillhouse.preflight.findings import Finding
from stillhouse.recipe import Phase, Recipe
from stillhouse.render import Rendered
from stillhouse.signals.measure import bytes_per_token
from stillhouse.teachers.forced import forced

_TIMED_ROWS = 8
_STORED = ("feature.top_k", "feature.sampled_tokens", "feature.hidden_states")
_LEFT = 0.9  # of what is free: more than this is not enough
# bytes of activations per token, layer and hidden dimension: about 34 in half precision without checkpointing
_ACTIVATIONS = 68


def forecast(
    recipe: Recipe,
    rows: Sequence[Rendered],
    data_rows: int,
    student: Any,
    teacher: Any,
    tokenizer: Any,
    folder: Path,
    read_by_teacher: Sequence[Rendered] = (),
) -> Iterator[Finding]:
    """`data_rows`: how many rows the data has; `rows`: those looked at, as the student reads them. `teacher` None: its weights
    do not lie here.
    """
    length = sum(len(row.ids) for row in rows) / len(rows)
    steps = [_steps(phase, data_rows) for phase in recipe.train]
    tokens = sum(each * _batch(phase) * length for each, phase in zip(steps, recipe.train)) * recipe.repeats
    online = teacher is not None and any(entry.teachers for phase in recipe.train for entry in phase.objectives)
    beside = (teacher, tokenizer, read_by_teacher) if online else None
    yield _time(rows, tokens, sum(steps) * recipe.repeats, student, beside)
    batch = max((_batch_at_once(phase) for phase in recipe.train), default=1)
    yield _memory(student, teacher if online else None, batch * length)
    signals = _signals(recipe, read_by_teacher, data_rows, teacher, tokenizer) if teacher is not None else 0.0
    yield _disk(student, folder, signals)


def _time(
    rows: Sequence[Rendered],
    tokens: float,
    steps: int,
    student: Any,
    online: tuple[Any, Any, Sequence[Rendered]] | None,
) -> Finding:
    timed = list(rows[:_TIMED_ROWS])
    count = sum(len(row.ids) for row in timed)
    learning, reading = _seconds(lambda: _learn(student, timed)) / count, 0.0
    if online is not None:
        teacher, tokenizer, read = online
        theirs = list(read[:_TIMED_ROWS])
        reading = _seconds(lambda: list(forced(teacher, tokenizer, theirs, lambda *_: None))) / count
    whole = tokens * (learning + reading)
    numbers = {
        "seconds": round(whole, 1),
        "steps": steps,
        "tokens": round(tokens),
        "student_tokens_per_second": round(1 / learning),
    }
    beside = ", the teacher beside it" if online is not None else ""
    said = f"{steps} steps, {tokens:,.0f} tokens at {1 / (learning + reading):,.0f} a second now{beside}"
    return Finding(
        "time", "note", f"about {_duration(whole)} of training on this machine as busy as it is ({said})", numbers
    )


def _memory(student: Any, teacher: Any, batch_tokens: float) -> Finding:
    parameters = sum(each.numel() for each in student.parameters())
    config = student.config.get_text_config(decoder=True)
    # weights, gradients and two moments in float32; then what the backward pass needs of a batch
    needed = 16 * parameters + batch_tokens * _ACTIVATIONS * config.hidden_size * config.num_hidden_layers
    needed += 3 * 4 * min(batch_tokens, 4096) * config.vocab_size
    if teacher is not None:
        needed += sum(each.numel() * each.element_size() for each in teacher.parameters())
    free = _available()
    numbers = {"needed_gib": round(needed / 2**30, 3), "free_gib": round(free / 2**30, 1)}
    said = f"about {needed / 2**30:.2f} GiB beside what is loaded, {free / 2**30:.1f} free"
    return Finding("memory", "warning" if needed > _LEFT * free else "ok", said, numbers)


def _signals(recipe: Recipe, rows: Sequence[Rendered], data_rows: int, teacher: Any, tokenizer: Any) -> float:
    """Bytes of all stores of signals that the recipe fills."""
    tokens = data_rows * sum(len(row.response) for row in rows) / len(rows)
    stored = (e for branch in recipe.knowledge.values() for e in branch.elicit if e.do in _STORED)
    return sum(tokens * bytes_per_token(e.do, e.knobs, rows[:_TIMED_ROWS], teacher, tokenizer) for e in stored)


def _disk(student: Any, folder: Path, signals: float) -> Finding:
    parameters = sum(each.numel() for each in student.parameters())
    # a checkpoint with its moments, the phase's student, the final one
    needed = 4 * parameters * 5 + signals
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    numbers = {"needed_gib": round(needed / 2**30, 3), "free_gib": round(free / 2**30, 1)}
    also = f", of which {signals / 2**20:.1f} MiB stored signals" if signals else ""
    said = f"about {needed / 2**30:.2f} GiB for checkpoints and students{also}, {free / 2**30:.1f} free"
    return Finding("disk", "warning" if needed > _LEFT * free else "ok", said, numbers)


def _learn(student: Any, rows: Sequence[Rendered]) -> None:
    import torch

    with torch.enable_grad():
        for row in rows:
            ids = torch.tensor([row.ids], device=student.device)
            if student.config.is_encoder_decoder:
                student(input_ids=ids[:, : row.start], labels=ids[:, row.start :]).loss.backward()
            elif student.get_output_embeddings() is None:
                student(input_ids=ids)[0].sum().backward()
            else:
                student(input_ids=ids, labels=ids).loss.backward()
    student.zero_grad(set_to_none=True)


def _seconds(work: Any) -> float:
    work()  # the first pass pays for what is only done once
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _batch_at_once(phase: Phase) -> int:
    return int(phase.args.get("per_device_train_batch_size", 8))


def _batch(phase: Phase) -> int:
    return _batch_at_once(phase) * int(phase.args.get("gradient_accumulation_steps", 1))


def _steps(phase: Phase, data_rows: int) -> int:
    if int(phase.args.get("max_steps", -1)) > 0:
        return int(phase.args["max_steps"])
    return math.ceil(float(phase.args.get("num_train_epochs", 3)) * math.ceil(data_rows / _batch(phase)))


def _available() -> int:
    info = Path("/proc/meminfo")
    if info.is_file():
        line = next((line for line in info.read_text().splitlines() if line.startswith("MemAvailable")), "")
        if line:
            return int(line.split()[1]) * 1024
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
