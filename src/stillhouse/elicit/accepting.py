"""What a teacher rewrote, held against what it replaced, by the statistics of the model that is to learn it (R13)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from stillhouse.elicit.asking import in_chunks
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, content_id, user
from stillhouse.selection.influence import Meter, difficulties, reverse_difficulties

__all__ = ["answer", "request"]


def request(examples: Iterable[Example], *, model: str, below: float = 1.0) -> Iterator[Example | Lost]:
    """Each rewritten pair where it is harder for the student than the old one, by IFD; otherwise the old pair comes back.

    Behind `feedback.reflect`, whose columns `was_request` and `was` hold the old pair. IFD is ppl(A | Q) / ppl(A) under
    the local `model` (`pocket` is the shipped student); `below` and more means that the request does not help, which
    no pair may have. The columns `kept` ("new", "old"), `ifd` and `was_ifd` tell the choice. Lost: "ifd_too_high" where
    neither pair passes, "no_score". No teacher is asked. Source: R13 (Selective Reflection-Tuning, IFD(new) > IFD(old)).
    """
    meter = Meter(model)
    for chunk in in_chunks(examples):
        before = [
            replace(one, prompt=user(_column(one, "was_request")), response=_column(one, "was"), reference=None)
            for one in chunk
        ]
        for one, old, new_value, old_value in zip(
            chunk, before, difficulties(meter, chunk), difficulties(meter, before), strict=True
        ):
            told = {"ifd": new_value, "was_ifd": old_value}
            if new_value is None or old_value is None:
                yield Lost(one.id, "no_score")
            elif old_value < new_value < below:
                yield _chosen(one, one, {"kept": "new", **told})
            elif old_value < below:
                yield _chosen(one, old, {"kept": "old", **told})
            else:
                yield Lost(one.id, "ifd_too_high")


def answer(
    examples: Iterable[Example], *, model: str, below: float = 1.0, otherwise: Literal["drop", "old"] = "drop"
) -> Iterator[Example | Lost]:
    """Each revised answer where it gives its request away better than the old one did, by reverse IFD.

    Behind `feedback.revise` or any step that keeps the old answer in the column `was`. Reverse IFD is ppl(Q | A, asked for
    the request behind it) / ppl(Q); lower fits better, `below` and more fits not at all. A rejected revision drops the
    row ("reverse_ifd_not_lower"), as the released script does, or with `otherwise: old` brings the old answer back where
    that one fits. An answer that the reviser left as it was is kept. Columns `kept`, `reverse_ifd`, `was_reverse_ifd`. Lost
    too: "reverse_ifd_too_high", "no_score". No teacher is asked. Source: R13 (Selective Reflection-Tuning).
    """
    meter = Meter(model)
    for chunk in in_chunks(examples):
        before = [replace(one, response=_column(one, "was")) for one in chunk]
        scores = zip(reverse_difficulties(meter, chunk), reverse_difficulties(meter, before), strict=True)
        for one, old, (new_value, old_value) in zip(chunk, before, scores, strict=True):
            told = {"reverse_ifd": new_value, "was_reverse_ifd": old_value}
            same = one.response.split() == old.response.split()
            if new_value is None or old_value is None:
                yield Lost(one.id, "no_score")
            elif min(new_value, old_value if otherwise == "old" else new_value) >= below:
                yield Lost(one.id, "reverse_ifd_too_high")
            elif same or new_value < old_value:
                yield _chosen(one, one, {"kept": "new", **told})
            elif otherwise == "old":
                yield _chosen(one, old, {"kept": "old", **told})
            else:
                yield Lost(one.id, "reverse_ifd_not_lower")


def _chosen(one: Example, chosen: Example, columns: dict[str, object]) -> Example:
    origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
    name = content_id("Example", one.id, columns["kept"], chosen.prompt, chosen.response)
    return replace(chosen, id=name, columns={**one.columns, **columns}, origin=origin)


def _column(one: Example, name: str) -> str:
    if name not in one.columns:
        raise RecipeError(
            f"accepting: row {one.id} has no column {name!r}; put feedback.reflect or feedback.revise before"
        )
    return str(one.columns[name])
