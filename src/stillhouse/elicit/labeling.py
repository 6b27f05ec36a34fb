"""Labeling: the teacher writes y for a given x (Eq. 3)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from stillhouse.elicit.asking import (
    Position,
    Unparsed,
    answered_by,
    as_asked,
    born,
    instructed,
    lost,
    read_each,
    seeds_of,
)
from stillhouse.elicit.dialogue import simulated
from stillhouse.elicit.parsing import Rationale, code_block, rationale, spoken, turns
from stillhouse.errors import RecipeError, nearest
from stillhouse.graders import Grader
from stillhouse.graders.final import MARKERS
from stillhouse.records import Example, Lost, Message, Origin, Prompt, Seed, Trajectory, content_id, user
from stillhouse.teachers.base import Generates, Outcome

__all__ = [
    "acts",
    "answer",
    "as_reference",
    "classify",
    "dialogue",
    "explain",
    "program",
    "rationale_and_label",
    "reason",
    "reference",
    "strategy",
    "transcript",
]

REASON = 'Write down your reasoning step by step. Then end with one line: "The answer is", and the answer itself.'


PROGRAM = (
    "Solve this by writing a short Python program, in one fenced block. "
    "The program prints the answer, alone, in its last line. Use the standard library only."
)
EXPLAINERS = (
    "Explain every step that leads you to the answer, as a patient teacher would to someone who wants to understand.",
    "Give the answer first, then justify it in full, naming the facts that it rests on.",
    "Break the task into its parts, deal with them one after the other, and then put the result together.",
    "Answer so that a child of ten can follow: simple words, no step left out.",
    "State what is asked, what is given and what has to be found; then reason to the answer and check it.",
    "You are careful with facts: say what you rely on, what you infer, and what would change your answer.",
)
CODEBOOK = "Classify the text below. These are the classes and what they mean:\n{codebook}"
CLASS_ONLY = 'Write one line, "Class:", and the name of the one class that fits best. Write nothing else.'
TRANSCRIPT = (
    "Write the conversation that follows when a person asks an assistant about what is given below. Begin each of the "
    "person's turns with [Human] and each of the assistant's with [AI]; the person speaks first, asks follow-up "
    "questions that build on the answers, and ends the conversation when satisfied. The assistant is helpful, exact and "
    "honest about what it does not know. Write about {exchanges} exchanges.\n\nThe subject:\n"
)


def answer(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    instruction: str | None = None,
    position: Position = "after",
    keep_instruction: bool = False,
) -> Iterator[Example | Lost]:
    """The teacher's answers to the seeds, as they are.

    `instruction` is added for the teacher only (after or before the last user turn, or as a system message); the
    student learns under the seed's own prompt, which is context distillation (R43), unless `keep_instruction`. Given
    examples instead of seeds it relabels: same prompts, new teacher (R02). Source: Eq. 3.
    """
    yield from answered_by(seeds, teacher, _with(instruction, position), str.strip, _under(keep_instruction))


def reason(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    instruction: str | None = REASON,
    position: Position = "after",
    keep_instruction: bool = False,
    cut: Sequence[str] = (),
    final: Sequence[str] = MARKERS,
) -> Iterator[Example | Lost]:
    """Written reasoning that ends in an answer (chain of thought).

    The response is the teacher's text up to the first of `cut` (few-shot teachers run on into an invented next
    question: `cut: ["\\n\\nQ:"]`). It must hold one of the `final` markers with an answer behind it; a text without
    is quarantined as "unparsed", one that stops in mid-sentence as "truncated". An empty `final` accepts any text.
    `instruction: null` asks with the seed alone; `keep_instruction` trains the student under the instruction too.
    Sources: Eq. 3, R20.
    """

    def read(text: str) -> str | Unparsed:
        parsed = rationale(text, cut=cut, final=final)
        return parsed if isinstance(parsed, Unparsed) else parsed.text

    yield from answered_by(seeds, teacher, _with(instruction, position), read, _under(keep_instruction))


def reference(
    seeds: Iterable[Seed], *, template: str = "{reference}", column: str | None = None
) -> Iterator[Example | Lost]:
    """The known answers themselves, without a teacher: what a control is trained on.

    `template` is the text around the answer (`The answer is {reference}.`). With `column` the answer is what stands there,
    and the reference stays what it was (a program beside its tests). A seed without it is lost as "no_reference". Source:
    the baseline of Eq. 9 with gold labels.
    """
    for seed in seeds:
        known = seed.reference if column is None else seed.columns.get(column)
        if known is None:
            yield Lost(seed.id, "no_reference")
        else:
            yield seed.answered(template.replace("{reference}", str(known)), asked=(), teacher="")


def as_reference(examples: Iterable[Example]) -> Iterator[Seed]:
    """The same prompts with the answers as their references: what another's answers are then held against. No teacher.

    Source: R12 (the teacher's answer is what the student's is compared with).
    """
    for one in examples:
        name = content_id("Seed", one.id, one.response)
        yield Seed(name, one.prompt, one.response, one.columns, Origin((one.id,), one.origin.teacher, one.origin.keys))


def acts(trajectories: Iterable[Trajectory], *, observed: str = "Observation: ") -> Iterator[Example | Lost]:
    """One example for each act of a trajectory: the student learns the thought and the action, never what the world answered.

    The prompt is the goal and everything so far, observations as the user's turns behind `observed`; the response is
    "Thought: ..." and "Action: name[argument]". The columns `act` and `reward` say which one it is and how it ended. No
    teacher is asked. Source: R50 (loss on thoughts and actions only).
    """
    for one in trajectories:
        told = one.prompt
        for number, act in enumerate(one.acts, 1):
            response = spoken(act)
            columns = {**one.columns, "act": number, "reward": one.reward}
            name = content_id("Example", one.id, number, response)
            origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
            yield Example(name, told, response, one.reference, (), columns, origin)
            told = (*told, Message("assistant", response), Message("user", f"{observed}{act.observation}"))


def program(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    instruction: str = PROGRAM,
    keep_instruction: bool = False,
) -> Iterator[Example | Lost]:
    """A program whose output is the answer (program of thought).

    The response is the one fenced block of the teacher's answer; none or several are quarantined ("no_program",
    "several_programs"). Whether it gives the right answer is for `quality.correct` with `code.output`. Source: R22.
    """
    yield from answered_by(seeds, teacher, _with(instruction, "after"), code_block, _under(keep_instruction))


def explain(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    systems: Sequence[str] | Mapping[str, Sequence[str]] = EXPLAINERS,
    by: str | None = None,
) -> Iterator[Example | Lost]:
    """Answers under one of several system messages that ask for an explanation; the student learns under the same one.

    Which message a seed gets is drawn by its id, so that it does not depend on the seeds around it. With `by`, the column
    of that name says which list of `systems` it is drawn from: messages that suit its kind of task. Source: R05 (Orca).
    """
    if not systems or isinstance(systems, Mapping) != (by is not None):
        raise RecipeError("labeling.explain: write systems as a list, or as lists by the kinds in the column `by`")

    def prompt_of(seed: Seed) -> Prompt:
        kind = str(seed.columns.get(by)) if by is not None else ""
        if isinstance(systems, Mapping) and not systems.get(kind):
            raise RecipeError(f"labeling.explain: row {seed.id} has {by} {kind!r}; {nearest(kind, systems)}")
        fitting = systems[kind] if isinstance(systems, Mapping) else systems
        return instructed(seed.prompt, fitting[int(content_id(seed.id), 16) % len(fitting)], "system")

    yield from answered_by(seeds, teacher, prompt_of, str.strip, as_asked)


def strategy(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    strategies: Mapping[str, str],
    by: str,
    generic: str | None = None,
) -> Iterator[Example | Lost]:
    """Answers under the strategy that suits the task, which the student is not told (prompt erasing).

    `strategies` maps names to system messages; the column `by` of a seed says which one it gets. The student learns
    under the system message `generic`, or under none: it must choose the strategy itself. Source: R06 (Orca 2).
    """

    def prompt_of(seed: Seed) -> Prompt:
        name = str(seed.columns.get(by))
        if name not in strategies:
            where = f"labeling.strategy: the column {by!r} of row {seed.id} holds {name!r}"
            raise RecipeError(f"{where}; {nearest(name, strategies)}")
        return instructed(seed.prompt, strategies[name], "system")

    def learn_under(seed: Seed, _: Outcome) -> Prompt:
        return instructed(seed.prompt, generic, "system")

    yield from answered_by(seeds, teacher, prompt_of, str.strip, learn_under)


def rationale_and_label(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    instruction: str | None = REASON,
    predict: str = "predict: ",
    explain: str = "explain: ",
    gold: bool = False,
    grader: Grader | None = None,
    cut: Sequence[str] = (),
    final: Sequence[str] = MARKERS,
) -> Iterator[Example | Lost]:
    """Reasoning and answer as two tasks of one seed, told apart by what the prompt begins with.

    Two examples for each answer: `predict` + prompt -> the final answer, `explain` + prompt -> the reasoning. The
    label is the teacher's, or the reference with `gold`. With a `grader`, both are dropped ("wrong") where the
    teacher's answer is not the reference. A text without reasoning before the answer is quarantined as
    "no_reasoning". At inference use `predict` only. Source: R20 (Distilling step-by-step).
    """

    def read(text: str) -> Rationale | Unparsed:
        parsed = rationale(text, cut=cut, final=final)
        return Unparsed("no_reasoning") if isinstance(parsed, Rationale) and not parsed.reasoning else parsed

    prompt = _with(instruction, "after")
    for seed, slot, outcome, value in read_each(seeds_of(seeds), teacher, prompt, read):
        if isinstance(value, Lost):
            yield value
        elif fault := _label_fault(seed, value, gold, grader):
            yield replace(lost(seed, slot, outcome, fault), state="dropped")
        else:
            label = seed.reference if gold and seed.reference is not None else value.final
            yield born(_prefixed(seed, predict), label, outcome, teacher.name)
            yield born(_prefixed(seed, explain), value.reasoning, outcome, teacher.name)


def _label_fault(seed: Seed, value: Rationale, gold: bool, grader: Grader | None) -> str:
    if (gold or grader) and seed.reference is None:
        return "no_reference"
    if grader is None:
        return ""
    (grade,) = grader([value.text], [seed.reference])
    return "could_not_tell" if grade.value is None else "wrong" if grade.value < 1 else ""


def _prefixed(seed: Seed, prefix: str) -> Seed:
    """The seed with a prefix before its last user turn."""
    last = max(i for i, message in enumerate(seed.prompt) if message.role == "user")
    message = Message("user", prefix + seed.prompt[last].content)
    return replace(seed, prompt=(*seed.prompt[:last], message, *seed.prompt[last + 1 :]))


def classify(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    labels: Mapping[str, str],
    keep_codebook: bool = False,
) -> Iterator[Example | Lost]:
    """The class of a text, by a codebook: names of classes and what each means.

    The response is the name of the class as the codebook spells it, read whole from the line "Class:" (or from an
    answer that is nothing else); anything else is quarantined as "no_class". The student learns under the seed's own
    prompt unless `keep_codebook`. Sources: R53, SK09.
    """
    if len(labels) < 2:
        raise RecipeError("labeling.classify: labels needs two classes or more, each with its meaning")
    codebook = "\n".join(f"- {name}: {meaning}" for name, meaning in labels.items())
    before, names = CODEBOOK.format(codebook=codebook), {name.casefold(): name for name in labels}

    def prompt_of(seed: Seed) -> Prompt:
        return instructed(instructed(seed.prompt, before, "before"), CLASS_ONLY, "after")

    def read(text: str) -> str | Unparsed:
        return class_line(text, names)

    yield from answered_by(seeds, teacher, prompt_of, read, _under(keep_codebook))


def class_line(text: str, names: Mapping[str, str]) -> str | Unparsed:
    """The class on the line "Class:", or of an answer that is nothing else; `names` maps folded names to their spelling."""
    lines = re.findall(r"^[\s*_]*class[\s*_]*:[\s*_]*(.+?)[\s*_.]*$", text, re.M | re.I) or [text.strip().strip("*_.")]
    named = names.get(lines[0].strip().strip("\"'").casefold())
    return named if named and len(set(lines)) == 1 else Unparsed("no_class", text[-80:])


def transcript(
    seeds: Iterable[Seed | Example], teacher: Generates, *, exchanges: int = 4, instruction: str = TRANSCRIPT
) -> Iterator[Example | Lost]:
    """A whole conversation about each seed, written by the teacher in one answer; one example per assistant turn.

    Each example's prompt is the conversation so far. Turns must alternate, the person first; an unfinished last turn
    is left out. Otherwise quarantined: "no_turns", "no_alternation", "empty_turn". Sources: R08 (Baize), SK02.
    """
    before = instruction.format(exchanges=exchanges)

    def prompt_of(seed: Seed) -> Prompt:
        return user(before + seed.prompt[-1].content)

    def read(text: str) -> tuple[Message, ...] | Unparsed:
        return turns(text, "[Human]", "[AI]")

    for seed, _, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, read):
        if isinstance(value, Lost):
            yield value
        else:
            yield from each_turn(seed, value, outcome, teacher.name)


def dialogue(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    exchanges: int = 4,
    person: str = "",
    assistant: str | None = None,
    learn: Literal["each", "last"] = "each",
) -> Iterator[Example | Lost]:
    """A conversation that begins with the seed's prompt; the teacher answers, then speaks for the person, in turns.

    `person` and `assistant` describe the two roles, with the seed's columns filled in where they stand in braces (R10:
    role pairs); the assistant's is a system message that the student keeps. It ends after `exchanges`, when the person
    is done, takes the assistant's part, repeats itself or only says thanks (these lines are left out); the column
    `ended` says why. `learn: each` gives an example per assistant turn, `last` the last one only. A conversation is
    lost only if its first answer is. Sources: R09 (UltraChat), R10 (CAMEL), R62, SK02.
    """
    if exchanges < 1:
        raise RecipeError(f"labeling.dialogue: exchanges is {exchanges}; write 1 or more")
    for talk in simulated(seeds_of(seeds), teacher, exchanges, person, assistant):
        yield from talk.given(learn, teacher.name)


def each_turn(seed: Seed, messages: Sequence[Message], outcome: Outcome, teacher: str) -> Iterator[Example]:
    """One example per assistant turn of a conversation, learnt under what was said before it."""
    for i, message in enumerate(messages):
        if message.role == "assistant":
            yield born(replace(seed, prompt=tuple(messages[:i])), message.content, outcome, teacher)


def _under(asked_with: bool) -> Callable[[Seed, Outcome], Prompt]:
    """What the student learns under: the prompt the teacher was asked with, or the seed's own."""
    return as_asked if asked_with else lambda seed, _: seed.prompt


def _with(instruction: str | None, position: Position) -> Callable[[Seed], Prompt]:
    return lambda seed: instructed(seed.prompt, instruction, position)
