"""Agents in a world: acting until the end, searching with going back, and what is learnt of it (R48-R50)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from stillhouse.elicit import agents
from stillhouse.elicit.labeling import acts
from stillhouse.environments import Observed, World, toolbox
from stillhouse.errors import RecipeError
from stillhouse.graders.text import exact
from stillhouse.records import Act, Example, Lost, Seed, Trajectory, user
from stillhouse.tools import calculator

GOAL = Seed("g", user("What is 3 + 4, doubled?"), "14")
Scripted = Callable[..., Any]


def box(seed: Seed) -> World:
    return toolbox(seed, tools=[calculator])


def say(thought: str, action: str, argument: str = "") -> str:
    return f"Thought: {thought}\nAction: {action}[{argument}]"


def test_r50_the_teacher_acts_until_it_finishes(scripted: Scripted) -> None:
    """R50 (ReAct): what it invents behind its act is not read; the reward is the grader's of the final answer."""
    teacher = scripted(
        replies=[
            say("Add.", "calculator", "3 + 4") + "\nObservation: 99",
            say("Double.", "calculator", "7 * 2"),
            say("So.", "finish", "14"),
        ]
    )
    (made,) = agents.react([GOAL], teacher, environment=box, grader=exact)
    assert isinstance(made, Trajectory)
    assert [act.observation for act in made.acts] == ["7", "14", "The task is finished."]
    assert (made.reward, made.columns["tries"], len(made.origin.keys)) == (1.0, 1, 3)
    lessons = list(acts([made]))
    assert [one.response for one in lessons if isinstance(one, Example)][
        1
    ] == "Thought: Double.\nAction: calculator[7 * 2]"
    assert isinstance(lessons[2], Example)
    assert "calculator[...]" in lessons[2].prompt[0].content
    assert lessons[2].prompt[-1].content == "Observation: 14"


def test_what_never_ends_or_cannot_be_read_is_lost_with_its_answers(scripted: Scripted) -> None:
    endless = scripted(reply=say("Again.", "calculator", "1 + 1"))
    (one,) = agents.react([GOAL], endless, environment=box, steps=3)
    assert isinstance(one, Lost)
    assert (one.reason, one.state, len(one.keys)) == ("no_end", "dropped", 3)
    (other,) = agents.react([GOAL], scripted(name="b", reply="I do not act."), environment=box)
    assert isinstance(other, Lost)
    assert (other.reason, other.state, other.parent) == ("no_acts", "quarantined", "g")


def test_r50_a_failed_attempt_is_followed_by_one_that_knows_why(scripted: Scripted) -> None:
    """R50 (Reflexion): the lesson is told to the teacher and not to the student."""
    teacher = scripted(
        responses={
            "did not reach it": "I forgot to double.",
            "forgot to double": say("14.", "finish", "14"),
            "doubled": say("7.", "finish", "7"),
        }
    )
    (made,) = agents.react([GOAL], teacher, environment=box, grader=exact, retries=2)
    assert isinstance(made, Trajectory)
    assert (made.reward, made.columns["tries"], len(made.origin.keys)) == (1.0, 2, 3)
    assert "forgot" not in str(made.prompt)


def test_several_attempts_are_neighbours_and_goals_are_played_together(scripted: Scripted) -> None:
    goals = [Seed(f"g{n}", user(f"Say {n}"), str(n)) for n in range(3)]
    made = list(
        agents.react(goals, scripted(n=2, reply=say("", "finish", "{reference}")), environment=box, grader=exact)
    )
    assert [one.reference for one in made if isinstance(one, Trajectory)] == ["0", "0", "1", "1", "2", "2"]
    assert len({one.id for one in made if isinstance(one, Trajectory)}) == 6


def test_r49_without_an_environment_the_teacher_plays_the_tools(scripted: Scripted) -> None:
    """R49 (ToolAlpaca): the description of the tools is a column; what was answered before is told to the one that plays."""
    goal = Seed("g", user("How warm is it in Oslo?"), None, {"documentation": "get_weather(city)"})
    teacher = scripted(
        responses={
            r"stand in.*Calls so far:\nget_weather\[Oslo\] -> 4 degrees.*The call: get_weather\[Bergen\]": "6 degrees",
            r"stand in for the tools.*get_weather\(city\).*The call: get_weather\[Oslo\]": "4 degrees",
            "Observation: 6 degrees": say("Both.", "finish", "4 and 6"),
            "Observation: 4 degrees": say("And Bergen.", "get_weather", "Bergen"),
            "How warm": say("Look.", "get_weather", "Oslo"),
        }
    )
    (made,) = agents.react([goal], teacher)
    assert isinstance(made, Trajectory)
    assert [(act.argument, act.observation) for act in made.acts][:2] == [
        ("Oslo", "4 degrees"),
        ("Bergen", "6 degrees"),
    ]
    with pytest.raises(RecipeError, match="no column 'documentation'"):
        list(agents.react([GOAL], teacher))


@dataclass(frozen=True)
class Maze:
    """Doors by name; where a path of doors leads is a function of the path, so nothing needs to be undone."""

    goal: tuple[str, ...] = ("b", "a")
    actions: str = "door[name]: goes through a door"

    def observe(self, past: Sequence[Act], act: Act) -> Observed:
        if act.action == "give_up":
            return Observed("Given up.", over=True, reward=0.0)
        here = (*(each.argument for each in past), act.argument)
        if here == self.goal:
            return Observed("Out.", over=True, reward=1.0)
        return Observed(f"You are in room {'-'.join(here)}.")


def maze(seed: Seed) -> World:
    return Maze()


def by_tree(choices: dict[tuple[str, ...], list[str]], scripted: Scripted) -> tuple[Any, list[str]]:
    """A teacher that tries `choices[path]` in order, "give_up" among them; and what it was asked at."""
    visited: list[str] = []
    teacher = scripted()

    def ask(requests: Any) -> Any:
        from stillhouse.teachers.base import Answer, Outcome

        for request in requests:
            rooms = [m.content for m in request.messages if m.content.startswith("Observation: You are in room")]
            path = tuple(rooms[-1].split("room ")[1].split(".")[0].split("-")) if rooms else ()
            whole = "\n".join(message.content for message in request.messages)
            number = whole.split("already tried:")[-1].count("\n- ") if "already tried" in whole else 0
            choice = choices[path][number]
            visited.append("-".join((*path, choice)))
            yield Outcome(
                request,
                Answer(say("", *(("give_up",) if choice == "give_up" else ("door", choice)))),
                f"k{len(visited)}",
            )

    teacher.ask = ask
    return teacher, visited


def test_r48_the_student_is_not_told_of_what_failed(scripted: Scripted) -> None:
    """R48: DFSDT's message about earlier tries is for the teacher alone."""
    teacher, _ = by_tree({(): ["a", "b"], ("a",): ["give_up"], ("b",): ["a"]}, scripted)
    (made,) = agents.depth_first([GOAL], teacher, environment=maze, width=2)
    assert isinstance(made, Trajectory)
    learnt = [one for one in acts([made]) if isinstance(one, Example)]
    assert [len(one.prompt) for one in learnt] == [2, 4]
    assert "tried" not in str([one.prompt for one in learnt])


def test_j7_the_order_of_visits_by_hand(scripted: Scripted) -> None:
    """R48, J7 (DFSDT): giving up goes back two nodes (a's other child is not tried), a call tried before goes back one."""
    tree = {
        (): ["a", "b"],
        ("a",): ["give_up", "z"],
        ("b",): ["c", "a"],
        ("b", "c"): ["d", "d"],
        ("b", "c", "d"): ["e", "e"],
    }
    teacher, visited = by_tree(tree, scripted)
    (made,) = agents.depth_first([GOAL], teacher, environment=maze, width=2, depth=3)
    assert visited == ["a", "a-give_up", "b", "b-c", "b-c-d", "b-c-d", "b-a"]
    assert isinstance(made, Trajectory)
    assert [act.argument for act in made.acts] == ["b", "a"]
    assert (made.columns["nodes"], made.columns["dead_ends"]) == (
        7,
        3,
    )  # given up; the depth bound; the same call again


def test_a_search_ends_with_its_budget_or_its_tree(scripted: Scripted) -> None:
    tree = {(): ["a", "c"], ("a",): ["x", "y"], ("c",): ["x", "y"]}
    teacher, visited = by_tree(tree, scripted)
    (one,) = agents.depth_first([GOAL], teacher, environment=maze, width=2, depth=2)
    assert isinstance(one, Lost)
    assert (one.reason, len(visited), len(one.keys)) == ("no_way", 6, 6)
    teacher, visited = by_tree(tree, scripted)
    (other,) = agents.depth_first([GOAL], teacher, environment=maze, width=2, depth=2, nodes=4)
    assert isinstance(other, Lost)
    assert (other.reason, len(visited)) == ("nodes_spent", 4)


def test_a_wrong_final_answer_is_a_dead_end(scripted: Scripted) -> None:
    """R48: with a known answer the search goes on until it is found."""
    teacher = scripted(responses={"already tried": say("", "finish", "14"), "doubled": say("", "finish", "7")})
    (made,) = agents.depth_first([GOAL], teacher, environment=box, grader=exact, width=2)
    assert isinstance(made, Trajectory)
    assert (made.reward, len(made.acts), made.columns["dead_ends"]) == (1.0, 1, 1)
    (none,) = agents.depth_first([GOAL], teacher, environment=box, grader=exact, width=1)
    assert isinstance(none, Lost)


def test_r50_reasoning_becomes_a_trajectory_of_one_act(scripted: Scripted) -> None:
    """R50 (FireAct): chain of thought in the form of ReAct, under the same prompt."""
    told = Example("e", GOAL.prompt, "3 + 4 is 7. Twice that is 14. The answer is 14.", "14")
    made, none = agents.from_reasoning(
        [told, Example("f", GOAL.prompt, "I do not know.", "14")], environment=box, grader=exact
    )
    assert isinstance(made, Trajectory)
    assert made.acts[0] == Act("3 + 4 is 7. Twice that is 14.", "finish", "14", "The task is finished.")
    assert made.reward == 1.0
    (acted,) = agents.react([GOAL], scripted(reply=say("", "finish", "14")), environment=box)
    assert isinstance(acted, Trajectory)
    assert acted.prompt == made.prompt
    assert isinstance(none, Lost)
    assert none.reason == "unparsed"


def test_r49_three_students_learn_their_parts_of_one_trajectory() -> None:
    """R49 (alpha-UMi): planner, caller and summariser, each under a line about its part."""
    path = Trajectory(
        "t", user("Sum?"), (Act("Add.", "calculator", "3 + 4", "7"), Act("Done.", "finish", "7", "")), 1.0
    )
    parts = {role: list(agents.roles([path], role=role)) for role in ("planner", "caller", "summariser")}
    said = {role: [one.response for one in made if isinstance(one, Example)] for role, made in parts.items()}
    assert said == {
        "planner": ["Thought: Add.\nNext: caller", "Thought: Done.\nNext: summariser"],
        "caller": ["Action: calculator[3 + 4]"],
        "summariser": ["7"],
    }
    (summary,) = parts["summariser"]
    assert isinstance(summary, Example)
    assert summary.prompt[-1].content == "Observation: 7\n\nThought: Done."
    gone = Trajectory("u", user("Sum?"), (Act("No.", "give_up", ""),), 0.0)
    assert [one.reason for one in agents.roles([gone], role="caller") if isinstance(one, Lost)] == ["not_its_part"]
