"""Judging as a skill of its own: verdicts that agree with what is known become lessons (R39, R59)."""

from collections.abc import Iterable, Iterator, Mapping

from stillhouse.elicit.asking import Unparsed, keys_of, read_each
from stillhouse.elicit.judge_prompts import ASPECTS
from stillhouse.elicit.rubric import Rubric
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates

__all__ = ["rated"]


def rated(
    seeds: Iterable[Seed],
    teacher: Generates,
    *,
    response: str = "response",
    score: str = "score",
    aspects: Mapping[str, str] = ASPECTS,
    low: int = 1,
    high: int = 5,
    within: float = 0.5,
) -> Iterator[Example | Lost]:
    """How to rate an answer, learnt from answers whose rating people gave: the prompt of `feedback.rate`, and a good verdict.

    Each seed has an answer in the column `response` and its known rating in `score` (kept by `seeds.columns`). The teacher
    (most often the student itself) rates it as `feedback.rate` would with the same `aspects`, `low` and `high`, giving its
    reasons; verdicts whose mean lies at most `within` from the known rating are learnt whole, reasons and all. Lost: "disagrees",
    "verdict_<code>". Columns: `score` (known), `rating`. Sources: R39 (evaluation data among the seeds), SK13.
    """
    rubric = Rubric(aspects, low, high)

    def prompt_of(one: Seed) -> Prompt:
        if response not in one.columns or score not in one.columns:
            raise RecipeError(f"judging.rated: row {one.id} needs the columns {response!r} and {score!r}; keep both")
        return user(rubric.prompt(prompt_text(one.prompt), str(one.columns[response])))

    def read(text: str) -> tuple[str, float] | Unparsed:
        found = rubric.read(text)
        return found if isinstance(found, Unparsed) else (text.strip(), sum(found.values()) / len(found))

    for one, slot, outcome, found in read_each(seeds, teacher, prompt_of, read):
        if isinstance(found, Lost):
            yield found
        elif abs(found[1] - float(one.columns[score])) > within:
            yield Lost(one.id, "disagrees", slot=slot, detail=f"{found[1]:g}", keys=keys_of(outcome))
        else:
            name, asked = content_id("Example", one.id, found[0], slot), outcome.request.messages
            columns = {**one.columns, "rating": found[1]}
            yield Example(
                name, asked, found[0], None, asked, columns, Origin((one.id,), teacher.name, keys_of(outcome))
            )
