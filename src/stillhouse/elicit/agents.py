"""Agents: the teacher acts in an environment, and what it thought and did is what a student learns (R48-R50).

The environment is one of `stillhouse/environments.py`, or of your own, or none: then the teacher plays the tools that
a column of the row describes. What the world answers is read by the student and never learnt (`labeling.acts`).
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace

from stillhouse.elicit.asking import Unparsed, seeds_of
from stillhouse.elicit.lessons import from_reasoning, roles
from stillhouse.elicit.lockstep import Part, Said, played
from stillhouse.elicit.parsing import acts as read_acts
from stillhouse.elicit.parsing import spoken
from stillhouse.elicit.scenes import OBSERVED, Environment, Scene, scene_of
from stillhouse.environments import GIVE_UP, Observed
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.records import Act, Example, Lost, Origin, Prompt, Seed, Trajectory, content_id, user
from stillhouse.teachers.base import Generates

__all__ = ["depth_first", "from_reasoning", "react", "roles"]

REFLECT = (
    "Here is an attempt at a goal that did not reach it.\n\nGoal:\n=====\n{goal}\n=====\nAttempt:\n=====\n{attempt}\n"
    "=====\n\nSay in two or three sentences what went wrong and what to do differently."
)
LEARNED = "What earlier attempts at this taught:\n{lessons}"
OTHERS = "From here you have already tried:\n{tried}\nNone of it led to the goal. Do something else now."


def react(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    environment: Environment | None = None,
    documentation: str = "documentation",
    grader: Grader | None = None,
    steps: int = 8,
    retries: int = 0,
) -> Iterator[Trajectory | Lost]:
    """The teacher thinks, acts and is told what came of it, until it finishes: one trajectory for each attempt.

    Without an `environment` the teacher plays the tools that the column `documentation` describes (R49, ToolAlpaca).
    The reward is the world's, or where it has none what `grader` says of the final answer against the reference. With
    `retries` an attempt with a reward below 1 is followed by another that is told the teacher's own reflections on
    those before; the student is not, and the column `tries` counts. `sampling: {n: 4}` makes four attempts at each
    goal. Lost: "no_end" after `steps` acts, and what the parser says of an unreadable act. Next: `quality.rewarded`,
    `labeling.acts`. Sources: R50 (ReAct; FireAct's Reflexion).
    """
    if steps < 1 or retries < 0:
        raise RecipeError(f"agents.react: steps is {steps} and retries {retries}; write 1 or more, and 0 or more")

    def begin(seed: Seed) -> Part:
        return _react(scene_of(seed, environment, documentation, grader), steps, retries)

    yield from _given(seeds, teacher, begin)


def _react(scene: Scene, steps: int, retries: int) -> Part:
    lessons: list[str] = []
    for tries in range(retries + 1):
        found = yield from attempt(scene, steps, lessons)
        failed = isinstance(found, Trajectory) and found.reward is not None and found.reward < 1
        if not failed or tries == retries:
            break
        told = "\n".join(f"{spoken(act)}\n{OBSERVED}{act.observation}" for act in found.acts)
        goal = "\n".join(message.content for message in scene.seed.prompt)
        said = yield user(REFLECT.format(goal=goal, attempt=told))
        if isinstance(said, Lost):
            break
        lessons.append(said.strip())
    return replace(found, columns={**found.columns, "tries": tries + 1}) if isinstance(found, Trajectory) else found


def attempt(scene: Scene, steps: int, lessons: Sequence[str]) -> Part:
    """One episode: a trajectory, or what was lost and why."""
    acts: list[Act] = []
    more = LEARNED.format(lessons="\n".join(f"- {each}" for each in lessons)) if lessons else ""
    for _ in range(steps):
        act = _read((yield scene.ask(acts, more)))
        if not isinstance(act, Act):
            return act if isinstance(act, Lost) else scene.lost(act.reason, act.detail)
        observed = yield from scene.answer(acts, act)
        if isinstance(observed, Lost):
            return observed
        acts.append(replace(act, observation=observed.text))
        if observed.over:
            return scene.ended(acts, observed)
    return scene.lost("no_end")


def depth_first(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    environment: Environment | None = None,
    documentation: str = "documentation",
    grader: Grader | None = None,
    width: int = 2,
    depth: int = 8,
    nodes: int = 40,
) -> Iterator[Trajectory | Lost]:
    """A depth-first search over calls, and of it the branch that succeeded.

    From each node the teacher may act up to `width` times, each time told what was tried from there and asked for
    something else (the student never is). Giving up, or a final answer that `grader` finds wrong, goes back two nodes;
    a call that was tried from there before, an unreadable one, or `depth` acts go back one. `nodes` bounds the acts
    asked for. The columns `nodes` and `dead_ends` say what it took. Lost: "nodes_spent", "no_way" (every branch
    ended). The other knobs are those of `agents.react`. Sources: R48, J7 (DFSDT).
    """
    if min(width, depth, nodes) < 1:
        raise RecipeError(f"agents.depth_first: width {width}, depth {depth} and nodes {nodes} must be 1 or more")

    def begin(seed: Seed) -> Part:
        return _Search(scene_of(seed, environment, documentation, grader), width, depth, nodes).run()

    yield from _given(seeds, teacher, begin)


class _Search:
    def __init__(self, scene: Scene, width: int, depth: int, budget: int) -> None:
        self.scene, self.width, self.depth, self.budget = scene, width, depth, budget
        self.nodes = self.dead = 0
        self.found: Trajectory | Lost | None = None

    def run(self) -> Part:
        yield from self.visit([])
        return self.found or self.scene.lost("nodes_spent" if self.nodes >= self.budget else "no_way")

    def visit(self, acts: list[Act]) -> Generator[Prompt, Said, int]:
        """How many nodes to go back when this one has nothing more; `found` ends everything."""
        if len(acts) >= self.depth:
            self.dead += 1
            return 1
        tried: list[Act] = []
        unusable = 0
        for _ in range(self.width):
            if self.nodes >= self.budget:
                return 1
            self.nodes += 1
            act = _read((yield self.scene.ask(acts, _others(tried, unusable))))
            if isinstance(act, Lost) and act.state == "not_attempted":
                self.found = act
                return 0
            if not isinstance(act, Act) or (act.action, act.argument) in {(a.action, a.argument) for a in tried}:
                self.dead, unusable = self.dead + 1, unusable + 1
                continue
            observed = yield from self.scene.answer(acts, act)
            if isinstance(observed, Lost):
                self.found = observed
                return 0
            tried.append(replace(act, observation=observed.text))
            path = [*acts, tried[-1]]
            back = self.leaf(path, observed) if observed.over else (yield from self.visit(path))
            if self.found is not None or (back > 1 and acts):  # above the root there is nothing to go back to
                return back - 1
        return 1

    def leaf(self, path: list[Act], observed: Observed) -> int:
        answer = path[-1].action != GIVE_UP
        found = self.scene.ended(path, observed, nodes=self.nodes, dead_ends=self.dead)
        if answer and (found.reward is None or found.reward >= 1):
            self.found = found
        else:
            self.dead += 1
        return 2


def _others(tried: Sequence[Act], unusable: int) -> str:
    # without the second line an answer of no use would be asked for in the same words, and given again
    lines = [f"- {each.action}[{each.argument}] -> {each.observation}" for each in tried]
    lines += ["- something that was no act, or the same again"] * unusable
    return OTHERS.format(tried="\n".join(lines)) if lines else ""


def _read(said: Said) -> "Act | Unparsed | Lost":
    """The first act of an answer; what a model invents behind it (an observation, further acts) is not read."""
    if isinstance(said, Lost):
        return said
    found = read_acts(said.split("Observation")[0].strip())
    return found if isinstance(found, Unparsed) else found[0][0]


def _given(
    seeds: Iterable[Seed | Example], teacher: Generates, begin: Callable[[Seed], Part]
) -> Iterator[Trajectory | Lost]:
    for episode in played(seeds_of(seeds), teacher, begin):
        result: Trajectory | Lost = episode.result
        if isinstance(result, Lost):
            yield replace(result, parent=episode.id, keys=episode.keys)
        else:
            name = content_id("Trajectory", episode.id, [spoken(act) for act in result.acts], episode.keys)
            yield replace(result, id=name, origin=Origin((episode.id,), teacher.name, episode.keys))
