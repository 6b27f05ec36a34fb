"""What trajectories teach, and what can be made one: no teacher is asked here (R49, R50)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from stillhouse.elicit.asking import Unparsed, instructed
from stillhouse.elicit.parsing import rationale, spoken
from stillhouse.elicit.scenes import OBSERVED, Environment, scene_of
from stillhouse.environments import FINISH, GIVE_UP, Observed
from stillhouse.graders import Grader
from stillhouse.graders.final import MARKERS
from stillhouse.records import Act, Example, Lost, Message, Origin, Seed, Trajectory, content_id

__all__: list[str] = []


def from_reasoning(
    examples: Iterable[Example],
    *,
    environment: Environment,
    grader: Grader | None = None,
    final: Sequence[str] = MARKERS,
) -> Iterator[Trajectory | Lost]:
    """Written reasoning as a trajectory of one act: the reasoning is the thought, the final answer its finish.

    So that a student learns in one form when to act and when not to. The prompt is that of `agents.react` in
    `environment`; no teacher is asked. Lost: what the parser of reasoning says. Source: R50 (FireAct mixes chain of
    thought into ReAct).
    """
    for one in examples:
        seed = Seed(one.id, one.prompt, one.reference, one.columns, one.origin)
        read = rationale(one.response, final=final)
        if isinstance(read, Unparsed):
            yield Lost(one.id, read.reason, "quarantined", detail=read.detail)
            continue
        act = Act(read.reasoning, FINISH, read.final.strip().rstrip("."))
        scene = scene_of(seed, environment, "", grader)
        observed = scene.world.observe((), act) if scene.world else Observed("")
        made = scene.ended([replace(act, observation=observed.text)], observed)
        name = content_id("Trajectory", one.id, spoken(act))
        yield replace(made, id=name, origin=Origin((one.id,), one.origin.teacher, one.origin.keys))


PLAN = "You plan. Say what to do next and why, then who does it on a line Next: caller, summariser or give up."
CALL = "You make the calls. Write the one call that the last thought asks for, as Action: name[argument]."
SUMMARISE = "You write the final answer from what was found, and nothing else."


def roles(
    trajectories: Iterable[Trajectory], *, role: Literal["planner", "caller", "summariser"]
) -> Iterator[Example | Lost]:
    """What one of three students has to learn of a trajectory: to plan, to call, or to write the final answer.

    The planner learns each thought and who is next, the caller the call that a thought asks for, the summariser the
    answer. Each reads the goal, everything so far and a line about its own part; no teacher is asked. A trajectory
    that gives a role nothing to learn is lost as "not_its_part". Source: R49 (alpha-UMi: trained on whole trajectories
    first, then apart).
    """
    for one in trajectories:
        told, made = one.prompt, 0
        for number, act in enumerate(one.acts, 1):
            following = {FINISH: "summariser", GIVE_UP: "give up"}.get(act.action, "caller")
            wanted = _part(role, act, following)
            if wanted:
                before = instructed(told, _PARTS[role], "system")
                if role != "planner":
                    before = instructed(before, f"Thought: {act.thought}")
                made += 1
                name = content_id("Example", one.id, role, number)
                origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
                columns = {**one.columns, "act": number, "role": role, "reward": one.reward}
                yield Example(name, before, wanted, one.reference, (), columns, origin)
            told = (*told, Message("assistant", spoken(act)), Message("user", f"{OBSERVED}{act.observation}"))
        if not made:
            yield Lost(one.id, "not_its_part")


_PARTS = {"planner": PLAN, "caller": CALL, "summariser": SUMMARISE}


def _part(role: str, act: Act, following: str) -> str:
    if role == "planner":
        return f"Thought: {act.thought}\nNext: {following}"
    if role != following:
        return ""
    return act.argument if role == "summariser" else spoken(replace(act, thought=""))
