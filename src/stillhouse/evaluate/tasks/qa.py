"""Questions with a checkable answer."""

from collections.abc import Callable, Sequence
from pathlib import Path

from stillhouse.evaluate import ItemScore
from stillhouse.graders import Grader
from stillhouse.records import Prompt
from stillhouse.seeds import file

__all__ = ["qa"]

Ask = Callable[[Sequence[Prompt], int], list[str]]


def qa(
    ask: Ask,
    *,
    path: Path,
    grader: Grader,
    max_new_tokens: int = 256,
    limit: int | None = None,
    prompt: str = "prompt",
    reference: str = "reference",
    template: str | None = None,
) -> list[ItemScore]:
    """Grades a student's greedy answers to the questions of a file, one row per question.

    `ask(prompts, max_new_tokens)` gives one text per prompt, in order. `path` is a file of seeds (JSONL, CSV, Parquet)
    with the fields `prompt` and `reference`; `limit` takes the first rows only. A row whose grade is None counts as
    not told, not as wrong.
    """
    items = list(file(path=path, prompt=prompt, reference=reference, template=template, limit=limit))
    responses = ask([item.prompt for item in items], max_new_tokens)
    grades = grader(responses, [item.reference for item in items])
    return [
        ItemScore(item.id, item.prompt[-1].content, item.reference, response, grade.value, grade.reason)
        for item, response, grade in zip(items, responses, grades, strict=True)
    ]
