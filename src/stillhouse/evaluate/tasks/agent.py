"""Students that act: in an environment, or with tools that run while they write."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stillhouse.elicit.agents import attempt
from stillhouse.elicit.scenes import Environment, scene_of
from stillhouse.environments import name_of
from stillhouse.errors import RecipeError
from stillhouse.evaluate import ItemScore
from stillhouse.graders import Grader
from stillhouse.records import Lost, Prompt, Seed, Trajectory
from stillhouse.seeds import file
from stillhouse.tools import Tool, ToolFaultError

__all__ = ["agent", "with_tools"]

Ask = Callable[[Sequence[Prompt], int], list[str]]
_OPEN = re.compile(r"\[(\w+)\(([^\[\]]*)\)\s*->")


def agent(
    ask: Ask,
    *,
    path: Path,
    environment: Environment,
    grader: Grader | None = None,
    steps: int = 8,
    prompt: str = "prompt",
    reference: str = "reference",
    max_new_tokens: int = 128,
    limit: int | None = None,
) -> list[ItemScore]:
    """Pass rate: how often the student reaches a goal by acting in an environment (`agents.react`).

    The value is the world's reward, or what `grader` says of the final answer. An act that cannot be read, or no end
    after `steps`, is worth 0 and the reason says which; the response shows the acts. Sources: R48 (pass rate), R50,
    12.7.
    """
    items = list(file(path=path, prompt=prompt, reference=reference, limit=limit))
    going = {number: attempt(scene_of(item, environment, "", grader), steps, ()) for number, item in enumerate(items)}
    asked = {number: next(part) for number, part in going.items()}
    ended: dict[int, Trajectory | Lost] = {}
    while asked:
        numbers = list(asked)
        for number, said in zip(numbers, ask([asked.pop(number) for number in numbers], max_new_tokens), strict=True):
            try:
                asked[number] = going[number].send(said)
            except StopIteration as end:
                ended[number] = end.value
    return [_scored(item, ended[number]) for number, item in enumerate(items)]


def _scored(item: Seed, found: Trajectory | Lost) -> ItemScore:
    question = item.prompt[-1].content
    if isinstance(found, Lost):
        return ItemScore(item.id, question, item.reference, found.detail, 0.0, found.reason)
    acts = " ".join(f"{act.action}[{act.argument}]" for act in found.acts)
    reason = "no_reward" if found.reward is None else "reached" if found.reward >= 1 else "not_reached"
    return ItemScore(item.id, question, item.reference, acts, found.reward, reason)


def with_tools(
    student: Any,
    tokenizer: Any,
    *,
    path: Path,
    grader: Grader,
    tools: Sequence[Tool],
    calls: int = 3,
    prompt: str = "prompt",
    reference: str = "reference",
    max_new_tokens: int = 256,
    batch_size: int = 32,
    limit: int | None = None,
) -> list[ItemScore]:
    """Graded answers of a student that calls tools while it writes.

    At "[name(argument) ->" the text stops, is told the result, and goes on, at most `calls` times; a tool that there is
    not, or that cannot answer, closes the brackets empty. Greedy. The grader sees the whole text, calls included.
    Source: R46 (decoding stops at the arrow).
    """
    from stillhouse.generate import generate_sorted
    from stillhouse.render import end_ids, pad_id, render, render_prompt

    run = {name_of(tool): tool for tool in tools}
    if not run:
        raise RecipeError("evaluate: agent.with_tools: tools is empty; name at least one, for example {do: calculator}")
    items = list(file(path=path, prompt=prompt, reference=reference, limit=limit))
    texts, made, open_ones = [""] * len(items), [0] * len(items), list(range(len(items)))
    ends = end_ids(tokenizer, student.generation_config)
    while open_ones:
        told = [
            render(tokenizer, items[i].prompt, texts[i]).ids[:-1]
            if texts[i]
            else render_prompt(tokenizer, items[i].prompt)
            for i in open_ones
        ]
        answers = generate_sorted(
            student, told, batch_size=batch_size, seeds=[0] * len(told), max_new_tokens=max_new_tokens, eos_ids=ends,
            pad_id=pad_id(tokenizer),
        )  # fmt: skip
        again = []
        for place, generated in answers:
            i = open_ones[place]
            more = tokenizer.decode(generated.ids, skip_special_tokens=True)
            called = _OPEN.search(more) if made[i] < calls else None
            if called is None:
                texts[i] += more
            else:
                texts[i] += f"{more[: called.end()]}{_result(run, called[1], called[2])}]"
                made[i] += 1
                again.append(i)
        open_ones = sorted(again)
    grades = grader(texts, [item.reference for item in items])
    return [
        ItemScore(item.id, item.prompt[-1].content, item.reference, text, grade.value, grade.reason)
        for item, text, grade in zip(items, texts, grades, strict=True)
    ]


def _result(run: dict[str, Tool], name: str, argument: str) -> str:
    try:
        return f" {run[name](argument.strip())}" if name in run else ""
    except ToolFaultError:
        return ""
