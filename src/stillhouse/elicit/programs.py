"""Programs that were run before they are learned: tests of the teacher's own, cleaner code, tools between thoughts (SK14)."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from stillhouse.elicit.asking import OfSeed, Unparsed, in_chunks, instructed, keys_of, lost, read_each, seeds_of
from stillhouse.elicit.parsing import code_block
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.graders.code import Sandbox, printed, program
from stillhouse.graders.final import last_marked
from stillhouse.records import Example, Lost, Message, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates, Outcome

__all__ = ["cleaned", "interleaved", "with_tests"]

TESTS = (
    "Here is a programming task.\n\nTask:\n=====\n{task}\n=====\n\nDo not solve it. Write tests of a solution as Python assert "
    "statements in one fenced block: ordinary cases, and the cases at the edges. They call the function by the name that the "
    "task gives it, and define no such function themselves."
)
SOLVE = "Your code, in one fenced block, must pass these tests:\n{tests}"
NOTHING = "```python\npass\n```"
RENAME = (
    "Give the variables and functions inside names that say what they hold and do; keep the names that callers use."
)
MODULARISE = (
    "Move parts that can stand alone into functions of their own, each with one purpose; keep what callers see."
)
PLAN = "Put a short plan of the solution before the code, as comments in its first lines, in the order of the code."
CLEAN = (
    "Here are a programming task and a program that solves it.\n\nTask:\n=====\n{task}\n=====\nProgram:\n=====\n{code}\n=====\n\n"
    "{step} Change nothing else about what it does. Write the whole program in one fenced block."
)
TOOLS = (
    "Solve this step by step. Where a calculation helps, write it as a short Python program in one fenced block, print what "
    "you need, and stop: you are shown what it prints, and go on from there. When nothing is left to calculate, write the "
    'solution in words and end with one line: "The answer is", and the answer itself.'
)


def with_tests(
    seeds: Iterable[Seed | Example], teacher: Generates, *, grader: Grader, solutions: int = 10
) -> Iterator[Example | Lost]:
    """The first of several solutions that passes tests which the teacher wrote for the task beforehand.

    The teacher writes tests (assert statements), then `solutions` answers that must pass them; the tests are the
    example's reference, so that a later step can run them again. `grader` is `code.passes` with its `sandbox`. The
    student sees the task alone. Lost: "no_program" and "several_programs" for the tests as a fenced block, "no_assert",
    "vacuous_tests" (a program that does nothing passes them), "no_solution_passes". Source: R60 (Code Llama).
    """
    for chunk in in_chunks(seeds_of(seeds)):
        ready: list[Seed] = []
        written = read_each(
            chunk, teacher, lambda one: user(TESTS.format(task=prompt_text(one.prompt))), _assertions,
            sampling=replace(teacher.sampling, n=1),
        )  # fmt: skip
        for one, slot, outcome, tests in written:
            if isinstance(tests, Lost):
                yield tests
            elif grader([NOTHING], [tests])[0].value != 0:
                yield lost(one, slot, outcome, "vacuous_tests", tests[:80])
            else:
                keys = (*one.origin.keys, *keys_of(outcome))
                ready.append(replace(one, reference=tests, origin=replace(one.origin, keys=keys)))
        found: dict[str, Example] = {}
        tried: dict[str, tuple[str, ...]] = {}
        drawn = replace(teacher.sampling, n=solutions)
        for one, _, outcome, text in read_each(ready, teacher, _with_tests, str.strip, sampling=drawn):
            tried[one.id] = (*tried.get(one.id, ()), *keys_of(outcome))
            if isinstance(text, Lost) or one.id in found or grader([text], [one.reference])[0].value != 1:
                continue
            keys = (*one.origin.keys, *keys_of(outcome))
            found[one.id] = one.answered(text, asked=outcome.request.messages, teacher=teacher.name, keys=keys)
        for one in ready:
            yield found.get(one.id) or Lost(one.id, "no_solution_passes", keys=tried.get(one.id, ()))


def _with_tests(one: Seed) -> Prompt:
    return instructed(one.prompt, SOLVE.format(tests=one.reference))


def _assertions(text: str) -> str | Unparsed:
    block = code_block(text)
    if isinstance(block, Unparsed):
        return block
    tests = "\n".join(block.splitlines()[1:-1]).strip()
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Unparsed("not_python", tests[-80:])
    return tests if any(isinstance(node, ast.Assert) for node in ast.walk(tree)) else Unparsed("no_assert", tests[:80])


def cleaned(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    grader: Grader,
    steps: Sequence[str] = (RENAME, MODULARISE, PLAN),
) -> Iterator[Example | Lost]:
    """Programs made easier to read in `steps`, each kept only if the program still passes its tests.

    The reference holds the tests (`code.passes` as `grader`). By default: names, functions, then a plan before the code. A
    step whose program fails, cannot be read, or changes nothing is left out, and the next starts from what stood. The
    columns `was` and `accepted` keep the old program and the numbers of the steps taken. Lost: "no_reference", "wrong" where
    the program failed from the start, "unchanged" where no step was taken. Source: R60 (Code Clean).
    """
    if not steps:
        raise RecipeError("programs.cleaned: steps is empty; write at least one")
    sampling = replace(teacher.sampling, n=1)
    for chunk in in_chunks(examples):
        known = [one for one in chunk if one.reference is not None]
        yield from (Lost(one.id, "no_reference") for one in chunk if one.reference is None)
        grades = grader([one.response for one in known], [one.reference for one in known])
        works = [
            _Cleaning(one, program(one.response)) for one, grade in zip(known, grades, strict=True) if grade.value == 1
        ]
        yield from (Lost(one.id, "wrong") for one, grade in zip(known, grades, strict=True) if grade.value != 1)
        for number, step in enumerate(steps, 1):

            def prompt_of(work: _Cleaning, step: str = step) -> Prompt:
                return user(CLEAN.format(task=prompt_text(work.one.prompt), code=work.code, step=step))

            for work, _, outcome, block in read_each(works, teacher, prompt_of, code_block, sampling=sampling):
                if isinstance(block, Lost) or program(block).split() == work.code.split():
                    continue
                if grader([block], [work.one.reference])[0].value == 1:
                    work.code = program(block)
                    work.taken.append((number, outcome))
        for work in works:
            yield work.given(teacher.name)


@dataclass(slots=True)
class _Cleaning:
    one: Example
    code: str
    taken: list[tuple[int, Outcome]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.one.id

    @property
    def reference(self) -> str | None:
        return self.one.reference

    def given(self, teacher: str) -> Example | Lost:
        if not self.taken:
            return Lost(self.one.id, "unchanged")
        one, outcomes = self.one, [outcome for _, outcome in self.taken]
        columns = {**one.columns, "was": one.response, "accepted": [number for number, _ in self.taken]}
        response, keys = f"```python\n{self.code.strip()}\n```", keys_of(*outcomes)
        name, origin = content_id("Example", one.id, response, keys), Origin((one.id,), teacher, keys)
        asked = outcomes[-1].request.messages
        return replace(one, id=name, response=response, asked=asked, columns=columns, origin=origin)


def interleaved(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    grader: Grader,
    sandbox: Sandbox,
    turns: int = 4,
    seconds: float = 5.0,
    memory_mb: int = 512,
    instruction: str = TOOLS,
    show: str = "The program printed:\n{output}",
) -> Iterator[Example | Lost]:
    """Reasoning and programs in turn: each program is run, and the teacher goes on from what it printed.

    One example per turn of the teacher, learnt under what was said and printed before it, so that outputs are read and
    never learnt (`show` is a user's turn); the student is not told the `instruction`. Programs of one solution share their
    variables. A program that fails shows its error, which the teacher may mend. Kept where the `grader` finds the last turn
    right. Lost: "no_reference", "wrong", "no_answer" (neither a program nor a final answer), "too_many_turns". `sandbox` and
    limits as in `code.passes`; `sampling: {n: ...}` draws several solutions. Column `turn`. Source: R22 (ToRA).
    """
    if turns < 1:
        raise RecipeError(f"programs.interleaved: turns is {turns}; write 1 or more")
    limits = {"seconds": seconds, "memory_mb": memory_mb}
    one_each = replace(teacher.sampling, n=1)
    for chunk in in_chunks(seeds_of(seeds)):
        yield from (Lost(one.id, "no_reference") for one in chunk if one.reference is None)
        known = [one for one in chunk if one.reference is not None]
        going = [_Solution(one, [], instruction) for one in known]
        solutions: list[_Solution] = []
        for turn in range(turns):
            sampling = teacher.sampling if turn == 0 else one_each
            following = []
            for before, slot, outcome, text in read_each(
                going, teacher, _Solution.prompt, str.strip, sampling=sampling
            ):
                now = before.forked(slot) if turn == 0 else before
                solutions += [now] if turn == 0 else []
                now.said(text, outcome)
                if now.code:
                    output, fault = printed(now.code, sandbox=sandbox, **limits)  # type: ignore[arg-type]
                    now.shown(show.replace("{output}", "\n".join(filter(None, (output.strip(), fault)))))
                    if fault:
                        now.blocks.pop()  # run again before the next one, it would stop that too
                    following.append(now)
            going = following
        for one in solutions:
            yield from one.given(grader, teacher.name)


_BLOCK = re.compile(r"```[ \t]*\w*[^\n]*\n.*?```", re.S)


@dataclass(slots=True, eq=False)
class _Solution(OfSeed):
    """One conversation of a teacher with an interpreter."""

    seed: Seed
    turns: list[Message]
    instruction: str
    slot: int = 0
    blocks: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    fault: Lost | None = None
    open: bool = True

    @property
    def code(self) -> list[str]:
        """The programs so far, where the last turn ended with one."""
        return self.blocks if self.open and self.fault is None else []

    def prompt(self) -> Prompt:
        return (*instructed(self.seed.prompt, self.instruction), *self.turns)

    def forked(self, slot: int) -> "_Solution":
        return _Solution(self.seed, [], self.instruction, slot)

    def said(self, text: str | Lost, outcome: Outcome) -> None:
        if isinstance(text, Lost):
            self.fault = replace(text, slot=self.slot)
            return
        block = _BLOCK.search(text)
        # what stands behind a program was written before its output was known
        self.turns.append(Message("assistant", text[: block.end()] if block else text))
        self.outcomes.append(outcome)
        if block:
            self.blocks.append(program(block[0]))
            return
        self.open = False
        if last_marked(text) is None:
            self.fault = lost(self.seed, self.slot, outcome, "no_answer", text[-80:])

    def shown(self, output: str) -> None:
        self.turns.append(Message("user", output))

    def given(self, grader: Grader, teacher: str) -> Iterator[Example | Lost]:
        keys = keys_of(*self.outcomes)
        if self.fault or self.open:
            yield self.fault or Lost(self.seed.id, "too_many_turns", slot=self.slot, keys=keys)
            return
        if grader([self.turns[-1].content], [self.seed.reference])[0].value != 1:
            yield Lost(self.seed.id, "wrong", slot=self.slot, keys=keys)
            return
        for at, message in enumerate(self.turns):
            if message.role != "assistant":
                continue
            prompt, turn = (*self.seed.prompt, *self.turns[:at]), at // 2
            name = content_id("Example", self.seed.id, prompt, message.content, self.slot, keys)
            asked, columns = self.outcomes[turn].request.messages, {**self.seed.columns, "turn": turn + 1}
            origin = Origin((self.seed.id,), teacher, keys)
            yield Example(name, prompt, message.content, self.seed.reference, asked, columns, origin)
