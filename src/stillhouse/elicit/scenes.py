"""A goal in its world: what an agent reads, who answers its acts, and how an episode is rewarded (R48-R50)."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.elicit.asking import instructed
from stillhouse.elicit.lockstep import Said
from stillhouse.elicit.parsing import spoken
from stillhouse.environments import ENDS, Observed, World, ends
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.records import Act, Lost, Message, Prompt, Seed, Trajectory, user

__all__: list[str] = []

GUIDE = (
    "Reach the goal by acting, one act at a time. Write a line that begins with Thought: and says what to do next "
    "and why, then one line Action: name[argument]. After each act you are told what came of it. The actions:\n{actions}"
)
PLAYED = (
    "You stand in for the tools below. Answer the last call as the tool would, in a line or two and nothing else; "
    "where the call does not fit, answer with an error. Stay consistent with what was answered before.\n\n"
    "The tools:\n{tools}\n\n{before}The call: {call}"
)
Environment = Callable[[Seed], World]
Told = Generator[Prompt, Said, "Observed | Lost"]
OBSERVED = "Observation: "


@dataclass(frozen=True, slots=True)
class Scene:
    """A goal in its world: what the agent is told, and how the world is asked. `world` None: the teacher plays the
    tools.
    """

    seed: Seed
    world: World | None
    tools: str
    grader: Grader | None

    @property
    def prompt(self) -> Prompt:
        actions = f"{self.tools}\n{ENDS}" if self.world is None else self.world.actions
        return instructed(self.seed.prompt, GUIDE.format(actions=actions), "system")

    def ask(self, acts: Sequence[Act], more: str = "") -> Prompt:
        """The goal and everything so far, as the student will read it; `more` is for the teacher alone."""
        told = self.prompt
        for act in acts:
            told = (*told, Message("assistant", spoken(act)), Message("user", f"{OBSERVED}{act.observation}"))
        return instructed(told, more)

    def answer(self, past: Sequence[Act], act: Act) -> Told:
        """What the world says to an act."""
        if self.world is not None:
            return self.world.observe(past, act)
        if ended := ends(act):
            return ended
        lines = [f"{each.action}[{each.argument}] -> {each.observation}" for each in past]
        before = f"Calls so far:\n{chr(10).join(lines)}\n\n" if lines else ""
        said = yield user(PLAYED.format(tools=self.tools, before=before, call=f"{act.action}[{act.argument}]"))
        return said if isinstance(said, Lost) else Observed(said.strip())

    def reward(self, act: Act, observed: Observed) -> float | None:
        """The world's own reward, or the grader's of the final answer."""
        if observed.reward is not None or self.grader is None or self.seed.reference is None:
            return observed.reward
        return self.grader([act.argument], [self.seed.reference])[0].value

    def ended(self, acts: Sequence[Act], observed: Observed, **columns: Any) -> Trajectory:
        """`id` and origin are given by whoever asked."""
        reward = self.reward(acts[-1], observed)
        return Trajectory("", self.prompt, tuple(acts), reward, self.seed.reference, {**self.seed.columns, **columns})

    def lost(self, reason: str, detail: str = "") -> Lost:
        return Lost(self.seed.id, reason, "quarantined" if detail else "dropped", detail=detail)


def scene_of(seed: Seed, environment: Environment | None, documentation: str, grader: Grader | None) -> Scene:
    if environment is not None:
        return Scene(seed, environment(seed), "", grader)
    if not (told := str(seed.columns.get(documentation) or "")):
        raise RecipeError(
            f"agents: row {seed.id} has no column {documentation!r} that describes its tools; name it (`documentation`, and "
            "`columns` in the seeds), or give an `environment`"
        )
    return Scene(seed, None, told, grader)
