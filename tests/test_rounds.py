"""Rounds: what each may read, when they stop, and that a run killed in the middle of one ends the same."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import knowledge, sums, write_jsonl

from stillhouse import distill, rounds
from stillhouse.books import audit, why
from stillhouse.check import check
from stillhouse.compliance.lineage import rows_by_teachers
from stillhouse.errors import GoalNotMet, RecipeError, RunFailed
from stillhouse.pocket import student_path, teacher_path
from stillhouse.recipe import StopEntry, load_recipe
from stillhouse.records import Example, user
from stillhouse.rounds import Health, fault, variety
from stillhouse.run import Options, Run, execute
from stillhouse.steps import Teachers
from stillhouse.store import Records

Recipe = dict[str, Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    write_jsonl(tmp_path / "seeds.jsonl", sums(8))
    return tmp_path


def trained(steps: int = 2, **rounds: Any) -> Recipe:
    """SPIN in small: the known answer preferred to the student's own (R38)."""
    recipe = knowledge()
    recipe["teachers"] = {}
    recipe["knowledge"] = {
        "played": {
            "seeds": {"do": "file", "path": "seeds.jsonl"},
            "elicit": [{"do": "self_knowledge.self_play", "teacher": "student", "sampling": {"stop": ["."]}}],
        }
    }
    recipe["student"] = {"model": "pocket"}
    args = {"max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    recipe["train"] = {"reference": "previous", "objectives": [{"do": "ranking.dpo", "on": "played"}], "args": args}
    recipe["rounds"] = {"most": 2, "stop": {"accepted": 0.0, "distinct": 0.0, "length": 100}, **rounds}
    return recipe


def own_answers(run: Path, number: int) -> list[str]:
    step = f"knowledge/played/round-{number}/01-self_knowledge.self_play/out.jsonl"
    return [json.loads(line)["responses"][1] for line in (run / step).read_text().splitlines()]


def final(run: Path) -> dict[str, bytes]:
    """Everything a run ends with that does not tell the time."""
    patterns = ("knowledge/**/*.jsonl", "students/**/*.safetensors", "student/*.safetensors")
    found = {path for pattern in patterns for path in run.glob(pattern)}
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="module")
def spun(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two rounds, in a folder with its seeds."""
    home = tmp_path_factory.mktemp("spun")
    write_jsonl(home / "seeds.jsonl", sums(8))
    return execute(load_recipe(trained(), folder=home), home / "run", Options(quiet=True))


def test_the_second_round_asks_the_student_of_the_first_and_starts_from_it(spun: Run) -> None:
    """R38, J5: the opponent and the reference of a round are the student of the round before."""
    revisions = [step["teachers"][0]["revision"] for step in spun.manifest["steps"] if step["teachers"]]
    assert len(revisions) == len(set(revisions)) == 2
    assert own_answers(spun.path, 1) != own_answers(spun.path, 2)
    assert [(row["round"], row["stopped"]) for row in spun.manifest["rounds"]] == [(1, ""), (2, "")]
    assert spun.manifest["students"][0]["round"] == 2
    home = spun.path / "students" / "main" / "0"
    weights = {place: (home / place / "model.safetensors").read_bytes() for place in ("", "round-1", "round-2")}
    assert weights["round-1"] != weights["round-2"] == weights[""]
    assert (spun.student / "model.safetensors").read_bytes() == weights[""]
    assert not (spun.student / "round-2").exists()
    assert audit(spun.path)["balanced"]
    assert "Rounds: what each made" in spun.report.read_text()
    trail = why(spun.path, spun.records("played")[0].id)
    assert [entry["step"] for entry in trail][-2:] == [
        "played/round-2/00-file", "played/round-2/01-self_knowledge.self_play",
    ]  # fmt: skip


def test_a_second_run_does_nothing(spun: Run) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in spun.path.rglob("round-*/*.safetensors")}

    before, earlier = final(spun.path), times()
    execute(load_recipe(spun.path / "recipe.yaml"), spun.path, Options(quiet=True))
    assert final(spun.path) == before
    assert times() == earlier


@pytest.mark.parametrize("place", [pytest.param("knowledge", marks=pytest.mark.slow), "train"])
def test_stopped_in_the_middle_of_a_round_it_ends_the_same(
    spun: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    recipe = load_recipe(spun.path / "recipe.yaml")
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "other"))
    name = {"knowledge": "_branch", "train": "_train"}[place]
    real, calls = getattr(rounds.Rounds, name), []

    def once(self: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RunFailed("pulled the plug")
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(rounds.Rounds, name, once)
        with pytest.raises(RunFailed):
            execute(recipe, tmp_path / "run", Options(quiet=True))
    assert final(execute(recipe, tmp_path / "run", Options(quiet=True)).path) == final(spun.path)


@pytest.mark.slow
def test_each_repeat_asks_its_own_student(here: Path) -> None:
    recipe = trained()
    recipe["repeats"] = 2
    run = distill(recipe, out="run", quiet=True)
    places = {path.name for path in (run.path / "knowledge").iterdir() if path.is_dir()}
    assert places == {"played@main.0", "played@main.1"}
    assert [student["seed"] for student in run.manifest["students"]] == [0, 1]
    assert audit(run.path)["balanced"]


def growing(rounds: Any, **branch: Any) -> Recipe:
    """A pool that grows by paraphrase; nothing is trained."""
    recipe = knowledge(responses={r"numbers included; .*\n\n(.*)": "1. Please say: {1}"})
    recipe["knowledge"]["answers"] |= {
        "elicit": [{"do": "expansion.paraphrase", "teacher": "main", "count": 1, "keep_original": False}],
        "select": [{"do": "dedup.exact"}],
        **branch,
    }
    recipe["rounds"] = rounds
    return recipe


def test_the_pool_is_the_seeds_and_everything_kept(here: Path) -> None:
    """J6: round k is shown what all rounds before have kept."""
    run = distill(growing({"most": 3, "stop": {"length": 10, "distinct": 0.0}}, carry="pool"), out="run", quiet=True)
    read = [step["out"] for step in run.manifest["steps"] if step["kind"] == "seeds"]
    assert read == [8, 16, 24]  # a seed asked again gives a row that is in the pool
    assert len(run.records("answers")) == 24
    lost = [step["lost"] for step in run.manifest["steps"] if step["kind"] == "union"]
    assert lost == [{}, {"in_pool": 8}, {"in_pool": 16}]
    assert audit(run.path)["balanced"]


def test_carrying_the_last_rows_leaves_the_seeds_behind(here: Path) -> None:
    run = distill(growing({"most": 3, "stop": {"length": 10, "distinct": 0.0}}, carry="last"), out="run", quiet=True)
    assert [step["out"] for step in run.manifest["steps"] if step["kind"] == "seeds"] == [8, 8, 8]
    assert run.records("answers")[0].prompt[0].content.startswith("Please say: Please say: Please say: What is")


def test_learning_from_all_rounds_and_from_the_last(here: Path) -> None:
    told = {"most": 3, "stop": {"length": 10, "distinct": 0.0}}
    last = distill(growing(told, carry="last"), out="last", quiet=True)
    assert len(last.records("answers")) == 8
    assert sum(rows_by_teachers(last.path)["answers"].values()) == 24  # each round's student began with the one before
    assert "24" in (last.path / "knowledge" / "TRAINING_SUMMARY.md").read_text()
    everything = distill(growing(told | {"learn": "all"}, carry="last"), out="all", quiet=True)
    assert len(everything.records("answers")) == 24
    assert audit(everything.path)["balanced"]
    assert "24" in everything.report.read_text()


def test_a_round_that_collapses_is_not_trained_on(here: Path) -> None:
    """O8, 3.6: the run ends with the student before, and says so."""
    recipe = growing({"most": 3, "stop": {"length": 1.2, "distinct": 0.0}}, carry="last")
    run = distill(recipe, out="run", quiet=True)
    told = run.manifest["rounds"]
    assert [bool(row["stopped"]) for row in told] == [False, True]
    assert told[1]["stopped"] == "texts have 9.0 words, 7.0 in the first round"
    assert "stopped: texts have 9.0 words" in run.report.read_text()


def test_a_first_round_that_keeps_too_little_is_a_goal_not_met(here: Path) -> None:
    recipe = growing({"most": 2, "stop": {"accepted": 0.9}}, carry="last")
    recipe["teachers"]["main"]["fail"] = {"refused": 2}
    with pytest.raises(GoalNotMet, match=r"the first round of arm main is not fit .* 50\.0% of the slots were kept"):
        distill(recipe, out="run", quiet=True)


@pytest.mark.slow
def test_a_round_without_gain_gives_the_better_student(here: Path) -> None:
    write_jsonl(here / "held.jsonl", sums(12, start=50))
    recipe = trained(stop={"accepted": 0.0, "distinct": 0.0, "length": 100, "gain": 0.5}, most=3)
    recipe["evaluate"] = [{"do": "qa", "path": "held.jsonl", "grader": {"do": "math.equal"}, "max_new_tokens": 4}]
    run = distill(recipe, out="run", quiet=True)
    assert [row["stopped"] for row in run.manifest["rounds"]] == ["", "held-out gain +0.000"]
    assert run.scores["tasks"][0]["validation_items"] > 0  # what was looked at counts in no score
    assert {row["arm"] for row in run.scores["summary"]} == {"base", "main"}


def test_what_the_monitors_see() -> None:
    first, stop = Health(10, 0.5, 0.8, 20.0), StopEntry(accepted=0.2, distinct=0.5, length=2.0)
    assert fault(first, first, stop) == ""
    assert "kept" in fault(Health(10, 0.19, 0.8, 20.0), first, stop)
    assert "variety fell" in fault(Health(10, 0.5, 0.39, 20.0), first, stop)
    assert "words" in fault(Health(10, 0.5, 0.8, 9.9), first, stop)
    assert "words" in fault(Health(10, 0.5, 0.8, 40.1), first, stop)


def test_variety_by_hand_and_independent_of_size() -> None:
    def rows(*texts: str) -> list[Example]:
        return [Example(str(i), user("x"), text) for i, text in enumerate(texts)]

    assert variety(rows("a b a b", "a b")) == (2 / 4, 3.0)  # ab ba ab, ab
    assert variety([]) == (0.0, 0.0)
    same = " ".join(f"w{n % 100}" for n in range(501))
    assert variety(rows(same))[0] == pytest.approx(variety(rows(same, same, same))[0]) == 100 / 500


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rounds": 2}, "rounds: every round would make the same rows"),
        ({"rounds": {"most": 2, "learning": "all"}}, r"rounds\.learning: unknown key; did you mean 'learn'"),
        ({"rounds": {"most": 0}}, r"rounds\.most: input should be greater than 0"),
        ({"rounds": {"most": 2, "stop": {"gain": 0.1}}}, r"rounds\.stop\.gain: there is nothing to gain on"),
    ],
)
def test_what_cannot_be_right_is_refused(here: Path, change: Recipe, said: str) -> None:
    recipe = growing(2, carry="pool") if "gain" in str(change) else knowledge()
    with pytest.raises(RecipeError, match=said):
        check(load_recipe(recipe | change))


def test_carrying_needs_rounds_and_rows_that_can_be_asked_about(here: Path) -> None:
    with pytest.raises(RecipeError, match="there is one round only"):
        check(load_recipe(growing(1, carry="pool")))
    recipe = trained()
    recipe["knowledge"]["played"]["carry"] = "last"
    with pytest.raises(RecipeError, match=r"carry .* Ranking"):
        check(load_recipe(recipe))
    for name in ("student", "base_student"):
        recipe = knowledge()
        recipe["teachers"][name] = {"backend": "scripted"}
        with pytest.raises(RecipeError, match=f"teachers.{name}: this name means"):
            check(load_recipe(recipe))


def test_the_base_student_stays_the_base(here: Path) -> None:
    """R21 (restart from base), R34: a frozen opponent in every round."""
    recipe = trained()
    recipe["knowledge"]["played"]["elicit"][0]["teacher"] = "base_student"
    with pytest.raises(RecipeError, match="every round would make the same rows"):
        check(load_recipe(recipe))
    now = Teachers(load_recipe(trained()).recipe, SimpleNamespace(on=None), teacher_path())
    assert now.backend("base_student").identity().model == student_path().name
    assert now.backend("student").identity().model == teacher_path().name


def test_a_selector_stands_against_chance_in_every_round_and_runs_once(here: Path) -> None:
    """O1: selection is an experiment, against a draw by chance of as many rows."""
    (here / "counting.py").write_text(
        "from pathlib import Path\n\ndef half(records, *, log='calls.txt'):\n    '''Every other row.'''\n"
        "    with open(log, 'a') as file:\n        file.write('x')\n"
        "    for n, record in enumerate(records):\n        yield record, 'odd' if n % 2 else None\n"
    )
    recipe = knowledge()
    recipe["knowledge"]["answers"]["select"] = [{"do": "counting.py:half", "against": "random"}]
    run = distill(recipe, out="run", quiet=True)
    assert (here / "calls.txt").read_text() == "x"
    assert len(Records(run.path / "knowledge/answers@main-random/02-counting.half/out.jsonl")) == 4
    assert audit(run.path)["balanced"]
