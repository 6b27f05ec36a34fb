"""Which way of going about it suits which kind of task, measured on the model that is to learn it (R06, Orca 2)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from stillhouse.elicit.asking import instructed, read_each, seeds_of
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, content_id
from stillhouse.teachers.base import Generates

__all__ = ["measured"]


def measured(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    strategies: Mapping[str, str],
    by: str,
    grader: Grader,
    probes: int = 16,
    column: str = "strategy",
    seed: int = 0,
) -> Iterator[Seed | Lost]:
    """Every seed with the strategy under which the asked model does best on its kind of task, in `column`.

    `by` names the column with the kind. Of each kind `probes` seeds with a reference are drawn and answered under each of
    `strategies` (system messages by name); an answer that the `grader` finds wrong, cannot tell, or that is cut off counts
    as 0. The first of equal strategies wins: write the cheapest first. The column `strategy_scores` keeps the means. With
    `teacher: student` it is the student's own performance that decides, as in Orca 2. Nothing of the probes is learnt; next is
    `labeling.strategy` with the same strategies and `by: strategy`. Lost: "no_reference" for a kind without one. The seeds are
    held. Source: R06 (Orca 2: a strategy for each task, from the student's measured performance).
    """
    if not strategies or probes < 1:
        raise RecipeError("strategies.measured: give one strategy or more, and 1 probe or more")
    kinds: dict[str, list[Seed]] = {}
    for one in seeds_of(seeds):
        if by not in one.columns:
            raise RecipeError(f"strategies.measured: row {one.id} has no column {by!r}; keep it with seeds.columns")
        kinds.setdefault(str(one.columns[by]), []).append(one)
    once = replace(teacher.sampling, n=1)
    for members in kinds.values():
        known = [one for one in members if one.reference is not None]
        if not known:
            yield from (Lost(one.id, "no_reference", "not_attempted") for one in members)
            continue
        probed = sorted(known, key=lambda one: content_id(seed, one.id))[:probes]
        scores: dict[str, float] = {}
        for name, message in strategies.items():

            def prompt_of(one: Seed, message: str = message) -> Prompt:
                return instructed(one.prompt, message, "system")

            right = 0.0
            for one, _, _, text in read_each(probed, teacher, prompt_of, str.strip, sampling=once):
                if not isinstance(text, Lost):
                    right += grader([text], [one.reference])[0].value or 0.0
            scores[name] = right / len(probed)
        best = max(strategies, key=lambda name: scores[name])
        for one in members:
            columns = {**one.columns, column: best, "strategy_scores": scores}
            origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
            yield replace(one, id=content_id("Seed", one.id, column, best), columns=columns, origin=origin)
