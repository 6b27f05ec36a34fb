"""Students that score or encode: what can be said of them before their head has learned anything."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from stillhouse.preflight.findings import Finding
from stillhouse.preflight.turns import own_head
from stillhouse.records import Example

_ONE_SIDED = 0.9  # a class with more of the rows than this makes saying nothing else right that often


def own_scores(student: Any, examples: Sequence[Example]) -> Iterator[Finding]:
    """Its ids, what its head begins from, and for a classifier how the rows are spread over its classes."""
    yield from own_head("student", student.model.get_input_embeddings(), student.tokenizer)
    if student.kind == "encoder":
        width = student.model.config.hidden_size
        yield Finding("student", "note", f"a text becomes {width} numbers by {student.pooling} of its states")
        return
    yield Finding(
        "student", "note", "a new head begins at random: who is better, teacher or student, can be told after training"
    )
    if student.kind == "classifier":
        yield from _classes(student.labels, [one.response for one in examples])


def _classes(labels: Sequence[str], found: Sequence[str]) -> Iterator[Finding]:
    counts = Counter(each for each in found if each in labels)
    told = ", ".join(f"{label}: {counts[label]}" for label in labels)
    other = sorted(set(found) - set(labels))
    numbers = {"rows": len(found), **{label: counts[label] for label in labels}}
    said = f"of {len(found)} rows {told}"
    if other:
        yield Finding(
            "classes", "warning",
            f"{said}; {len(found) - counts.total()} are none of student.labels, the first {other[0][:40]!r}: training ends "
            "there unless a step behind drops them (quality.correct with choice.equal)", numbers,
        )  # fmt: skip
    elif min(counts[label] for label in labels) == 0 or max(counts.values()) > _ONE_SIDED * len(found):
        yield Finding(
            "classes", "warning", f"{said}: a class that is seldom seen is not learned; balance the rows", numbers
        )
    else:
        yield Finding("classes", "ok", said, numbers)
