"""Expansion: the teacher writes new x, and y, from the examples it is shown (Eq. 4)."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stillhouse.elicit import operators
from stillhouse.elicit.asking import (
    Unparsed,
    accounted,
    complete,
    grown,
    in_chunks,
    keys_of,
    lost,
    numbered,
    read_each,
    sections,
    seeds_of,
)
from stillhouse.elicit.backwards import ASK_UNKNOWN, KNOWN_ANSWER, masked_numbers, numbers_of, reference_answer
from stillhouse.elicit.expansion_prompts import FUSE, MORE_TASKS, PARAPHRASE, RESTATE, SAME, WHOLE_TASKS
from stillhouse.errors import RecipeError, nearest
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.form import instruction as well_formed
from stillhouse.selection.novelty import Pool
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates, Outcome, Request

__all__ = ["backward", "evolve", "fuse", "one_call", "paraphrase", "restated_backward", "self_instruct"]


def self_instruct(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    wanted: int,
    demonstrations: int = 8,
    machine_made: int = 2,
    per_request: int = 8,
    threshold: float = 0.7,
    most_requests: int | None = None,
    seed: int = 0,
) -> Iterator[Seed | Lost]:
    """New instructions from a pool that grows with what was accepted, until `wanted` of them are.

    Each request shows `demonstrations` instructions in random order, `machine_made` of them from those accepted
    before, and asks for `per_request` more. An instruction is accepted when it has a fit form (`form.instruction`)
    and a ROUGE-L F1 of at most `threshold` with everything in the pool, the seeds included. Rejected ones are lost
    with their reason ("not_novel", "too_few_words", ...). At most `most_requests` (default: four times what would do
    if all were accepted) are made; `keep:` on the branch says whether fewer are an error. The pool is held. Sources:
    R01, J6; the answers are `labeling.answer`'s. Seeds of which nothing was made are lost as "not_shown".
    """
    pool = _GrowingPool(list(seeds_of(seeds)), threshold, random.Random(seed))
    bound = most_requests if most_requests is not None else 4 * -(-wanted // per_request)
    yield from accounted(pool.given, _grown(pool, teacher, wanted, bound, demonstrations, machine_made, per_request))


def _grown(
    pool: "_GrowingPool",
    teacher: Generates,
    wanted: int,
    bound: int,
    demonstrations: int,
    machine_made: int,
    per_request: int,
) -> Iterator[Seed | Lost]:
    for number in range(bound):
        if len(pool.made) >= wanted:
            return
        shown = pool.demonstrations(demonstrations, machine_made)
        listed = "\n".join(f"{i}. {' '.join(_text(one).split())}" for i, one in enumerate(shown, 1))
        prompt = user(MORE_TASKS.format(count=per_request, first=len(shown) + 1, shown=listed))
        # the number tells requests with equal demonstrations apart, so that none is answered by another's answer
        request = Request(prompt, teacher.sampling, number, tag=str(number))
        for outcome in teacher.ask([request]):
            text = complete(shown[0], number, outcome)
            items = text if isinstance(text, Lost) else numbered(text)
            if isinstance(items, Lost):
                yield items
            elif isinstance(items, Unparsed):
                yield lost(shown[0], number, outcome, items.reason, items.detail)
            else:
                for item in items[: wanted - len(pool.made)]:
                    made = grown(shown, item, outcome, teacher.name)
                    fault = pool.offer(made)
                    yield (
                        Lost(shown[0].id, fault, slot=number, detail=item[:80], keys=keys_of(outcome))
                        if fault
                        else made
                    )


@dataclass(slots=True)
class _GrowingPool:
    given: list[Seed]
    threshold: float
    draw: random.Random
    novel: Pool = None  # type: ignore[assignment]
    made: list[Seed] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not self.given:
            raise RecipeError("expansion.self_instruct: there are no seeds; give it some instructions to begin with")
        self.made, self.novel = [], Pool(self.threshold)
        for one in self.given:
            self.novel.add(words(_text(one)))

    def demonstrations(self, count: int, machine_made: int) -> list[Seed]:
        machine = self.draw.sample(self.made, min(machine_made, len(self.made)))
        shown = machine + self.draw.sample(self.given, min(count - len(machine), len(self.given)))
        self.draw.shuffle(shown)
        return shown

    def offer(self, made: Seed) -> str | None:
        """Takes an instruction into the pool, or says why not."""
        ((_, fault),) = well_formed([made])
        tokens = words(_text(made))
        if fault is None and self.novel.nearest(tokens) is not None:
            fault = "not_novel"
        if fault is None:
            self.novel.add(tokens)
            self.made.append(made)
        return fault


def one_call(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    requests: int,
    demonstrations: int = 3,
    per_request: int = 10,
    seed: int = 0,
) -> Iterator[Example | Lost]:
    """Instruction, input and answer written together, several tasks to a request.

    Demonstrations come from the seeds only (what was made is not fed back); a seed's reference, or an example's
    response, is shown as its answer. A task without all three parts is lost as "malformed"; an answer that was cut
    off is lost whole. Novelty is for `dedup.rouge` behind it. Seeds of which nothing was made are lost as "not_shown".
    Sources: R02 (Alpaca, Code Alpaca), Eq. 4 in one call.
    """
    shown_from = [(as_given, _answer_of(as_given)) for as_given in seeds]
    usable = [(one, given) for one, given in shown_from if given]
    if not usable:
        raise RecipeError(
            "expansion.one_call: no seed has a reference to show as its answer; name the column in `reference`"
        )
    made = _written(usable, teacher, requests, demonstrations, per_request, random.Random(seed))
    yield from accounted([one for one, _ in shown_from], made)


def _written(
    usable: Sequence[tuple[Seed | Example, str]],
    teacher: Generates,
    requests: int,
    demonstrations: int,
    per_request: int,
    draw: random.Random,
) -> Iterator[Example | Lost]:
    for number in range(requests):
        shown = draw.sample(usable, min(demonstrations, len(usable)))
        listed = "\n".join(f"###\nTask: {_text(one)}\nInput: none\nOutput: {given}" for one, given in shown)
        prompt = user(WHOLE_TASKS.format(shown_count=len(shown), shown=listed, count=per_request))
        for outcome in teacher.ask([Request(prompt, teacher.sampling, number, tag=str(number))]):
            text = complete(shown[0][0], number, outcome)
            if isinstance(text, Lost):
                yield text
                continue
            for part in text.split("###")[1:] or [""]:
                yield _whole_task(part, [one for one, _ in shown], outcome, teacher.name, number)


def _whole_task(
    part: str, shown: Sequence[Seed | Example], outcome: Outcome, teacher: str, number: int
) -> Example | Lost:
    fields = sections(
        part.replace("Task:", "[Task]").replace("Input:", "[Input]").replace("Output:", "[Output]"), _PARTS
    )
    if isinstance(fields, Unparsed):
        return lost(shown[0], number, outcome, "malformed", part.strip()[:80])
    given = fields["Input"]
    text = fields["Task"] if given.strip(" .").casefold() in ("none", "n/a") else f"{fields['Task']}\n\n{given}"
    ids, keys = tuple(one.id for one in shown), keys_of(outcome)
    name = content_id("Example", ids, text, fields["Output"], keys)
    return Example(name, user(text), fields["Output"], None, outcome.request.messages, {}, Origin(ids, teacher, keys))


_PARTS = ("Task", "Input", "Output")


def evolve(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    operators: Sequence[str] = operators.TEXT,
    generations: int = 1,
    judge: bool = True,
    keep_original: bool = False,
    seed: int = 0,
) -> Iterator[Seed | Lost]:
    """Requests made harder, or rarer, step by step.

    In each of `generations`, one of `operators` (drawn by the request's id and `seed`) rewrites each request; the
    rewritten one goes on to the next generation, and so does the old one where the rewriting is eliminated.
    Eliminated, with the reason: it is a copy ("unchanged"), it holds words of the operator's own prompt
    ("leaked_prompt"), or, with `judge`, the teacher finds that it asks for the same ("no_gain"). Known operators:
    see `elicit/operators.py` (text, code_*, maths_*). Every accepted request of every generation is given, with the
    columns `operator` and `generation`; with `keep_original` the seeds too. What the answers eliminate is for
    `form.refusal` and `form.echo`. Sources: R04, R24, R60 (code), J6.
    """
    chosen = [_operator(name) for name in operators]
    for chunk in in_chunks(seeds_of(seeds)):
        if keep_original:
            yield from chunk
        alive = chunk
        for generation in range(1, generations + 1):
            following: list[Seed] = []
            for old, new in _rewritten(alive, teacher, chosen, judge, f"{seed}/{generation}"):
                if isinstance(new, Lost):
                    yield new
                    following.append(old)
                else:
                    new = replace(new, columns={**new.columns, "generation": generation})
                    yield new
                    following.append(new)
            alive = list({one.id: one for one in following}.values())


def _rewritten(
    alive: Sequence[Seed], teacher: Generates, chosen: Sequence[tuple[str, str]], judge: bool, salt: str
) -> Iterator[tuple[Seed, Seed | Lost]]:
    """(old, new or Lost) for each sample of each request; those found to ask for the same are lost."""

    def drawn(old: Seed) -> tuple[str, str]:
        return chosen[int(content_id(salt, old.id), 16) % len(chosen)]

    def prompt_of(old: Seed) -> Prompt:
        return user(operators.FRAME.format(method=drawn(old)[1], text=_text(old)))

    waiting: list[tuple[Seed, Seed, int]] = []
    for old, slot, outcome, text in read_each(alive, teacher, prompt_of, _rewritten_text):
        fault = None if isinstance(text, Lost) else _copied(text, _text(old))
        if isinstance(text, Lost) or fault:
            yield old, text if isinstance(text, Lost) else Lost(old.id, fault or "", slot=slot, keys=keys_of(outcome))
            continue
        new = grown([old], text, outcome, teacher.name, operator=drawn(old)[0])
        if judge:
            waiting.append((old, new, slot))
        else:
            yield old, new
    pairs = [replace(new, prompt=user(SAME.format(first=_text(old), second=_text(new)))) for old, new, _ in waiting]
    one_answer = replace(teacher.sampling, n=1, temperature=0.0)
    verdicts = read_each(pairs, teacher, lambda pair: pair.prompt, _equal_or_different, sampling=one_answer)
    for (old, new, slot), (_, _, outcome, equal) in zip(waiting, verdicts, strict=True):
        if isinstance(equal, Lost):
            yield old, replace(equal, parent=old.id, slot=slot, reason=f"judge_{equal.reason}")
        else:
            yield old, Lost(old.id, "no_gain", slot=slot, keys=keys_of(outcome)) if equal else new


def _rewritten_text(text: str) -> str | Unparsed:
    found = text.split(operators.MARK)[-1].strip()
    return found or Unparsed("empty")


def _copied(text: str, old: str) -> str | None:
    if words(text) == words(old):
        return "unchanged"
    held = " ".join(words(text))
    given = " ".join(words(old))
    return "leaked_prompt" if any(mark in held and mark not in given for mark in operators.LEAKS) else None


def _equal_or_different(text: str) -> bool | Unparsed:
    verdict = text.strip().strip(".*").casefold()
    return verdict == "equal" if verdict in ("equal", "different") else Unparsed("no_verdict", text[-80:])


def _operator(name: str) -> tuple[str, str]:
    if name not in operators.METHODS:
        raise RecipeError(f"expansion.evolve: no operator {name!r}; {nearest(name, operators.METHODS)}")
    return name, operators.METHODS[name]


def paraphrase(
    seeds: Iterable[Seed | Example], teacher: Generates, *, count: int = 6, keep_original: bool = True
) -> Iterator[Seed | Lost]:
    """Other wordings of each prompt, with its reference kept: more data for a label that is known.

    `count` wordings are asked for in one numbered list; a list of another length is used as far as it goes, a
    wording equal to the original is left out ("unchanged"). Sources: R51 (AugGPT), R23 (rephrasing), SK09.
    """

    def prompt_of(one: Seed) -> Prompt:
        return user(PARAPHRASE.format(count=count, text=_text(one)))

    given = None
    for one, slot, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, numbered):
        if keep_original and one.id != given:
            yield one
        given = one.id
        for item in [value] if isinstance(value, Lost) else value[:count]:
            if isinstance(item, Lost):
                yield item
            elif words(item) == words(_text(one)):
                yield Lost(one.id, "unchanged", slot=slot, keys=keys_of(outcome))
            else:
                yield grown([one], item, outcome, teacher.name, reference=one.reference)


def fuse(seeds: Iterable[Seed | Example], teacher: Generates, *, seed: int = 0) -> Iterator[Seed | Lost]:
    """One request out of two, which needs what both need; each is fused with a partner among 64 neighbours.

    A single seed has no partner and is lost as "no_partner". Source: SK01 (Instruction Fusion).
    """
    draw = random.Random(seed)
    for chunk in in_chunks(seeds_of(seeds)):
        if len(chunk) == 1:
            yield Lost(chunk[0].id, "no_partner")
            continue
        shift = draw.randrange(1, len(chunk))
        partner = {one.id: chunk[(i + shift) % len(chunk)] for i, one in enumerate(chunk)}

        def prompt_of(one: Seed, partner: dict[str, Seed] = partner) -> Prompt:
            return user(FUSE.format(first=_text(one), second=_text(partner[one.id])))

        for one, _, outcome, text in read_each(chunk, teacher, prompt_of, str.strip):
            yield text if isinstance(text, Lost) else grown([one, partner[one.id]], text, outcome, teacher.name)


def _text(one: Seed | Example) -> str:
    return one.prompt[-1].content


def _answer_of(one: Seed | Example) -> str | None:
    return one.response if isinstance(one, Example) else one.reference


def backward(
    seeds: Iterable[Seed | Example], *, most: int = 1, unknown: str = "x", seed: int = 0
) -> Iterator[Seed | Lost]:
    """Problems asked backwards: a number becomes `unknown`, the known answer is told, and the number is asked for. No teacher.

    Up to `most` of a problem's numbers, drawn by its id and `seed`, give a problem each, whose reference is the number. A
    worked reference ("... #### 18") counts by its final answer. Lost: "no_number", "no_reference". Answers are
    `labeling.reason`'s, kept by `quality.correct`. Source: R23 (MetaMath's FOBAR).
    """
    for one in seeds_of(seeds):
        answer = reference_answer(one)
        if answer is None:
            yield Lost(one.id, "no_reference")
            continue
        masked = list(masked_numbers(_text(one), unknown, most, content_id(seed, one.id)))
        if not masked:
            yield Lost(one.id, "no_number")
        for text, number in masked:
            question = f"{text}\n\n{KNOWN_ANSWER.format(answer=answer, unknown=unknown)}"
            name = content_id("Seed", one.id, question)
            yield Seed(name, user(question), number, one.columns, Origin((one.id,), one.origin.teacher))


def restated_backward(
    seeds: Iterable[Seed | Example], teacher: Generates, *, most: int = 1, unknown: str = "x", seed: int = 0
) -> Iterator[Seed | Lost]:
    """Problem and answer rewritten as one statement, in which a number is then asked for.

    The teacher writes the statement; a number of it that also stands in the problem becomes `unknown`. Lost: "no_reference",
    "no_number" (the statement holds none of the problem's numbers), and "answer_missing" where it does not hold the answer.
    Source: R23 (MetaMath's Self-Verification).
    """

    def prompt_of(one: Seed) -> Prompt:
        return user(RESTATE.format(problem=_text(one), answer=reference_answer(one)))

    for chunk in in_chunks(seeds_of(seeds)):
        known = [one for one in chunk if reference_answer(one) is not None]
        yield from (Lost(one.id, "no_reference") for one in chunk if reference_answer(one) is None)
        for one, slot, outcome, text in read_each(known, teacher, prompt_of, str.strip):
            if isinstance(text, Lost):
                yield text
                continue
            if reference_answer(one) not in numbers_of(text):
                yield Lost(one.id, "answer_missing", slot=slot, detail=text[-80:], keys=keys_of(outcome))
                continue
            salt = content_id(seed, one.id, slot)
            only = numbers_of(_text(one)) - {reference_answer(one)}
            masked = list(masked_numbers(text, unknown, most, salt, only=only))
            if not masked:
                yield Lost(one.id, "no_number", slot=slot, keys=keys_of(outcome))
            for statement, number in masked:
                question = f"{statement} {ASK_UNKNOWN.format(unknown=unknown)}"
                yield grown([one], question, outcome, teacher.name, reference=number)
