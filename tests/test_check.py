"""What is refused before anything is spent, and that it is said in one sentence with its place."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from small_runs import knowledge, sums, trial_recipe, write_jsonl

from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.pocket import student_path, teacher_path
from stillhouse.recipe import load_recipe

Recipe = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("check")
    write_jsonl(made / "seeds.jsonl", sums(6))
    write_jsonl(made / "held.jsonl", sums(3, start=100))
    return made


def refused(recipe: Recipe, folder: Path) -> str:
    with pytest.raises(RecipeError) as error:
        check(load_recipe(recipe, folder=folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_plan_counts_rows_and_requests(folder: Path) -> None:
    recipe = trial_recipe()
    recipe["teachers"]["main"]["sampling"] = {"n": 3}
    plan = check(load_recipe(recipe, folder=folder))
    answers, beliefs = plan.branches
    assert (answers["seeds"], answers["requests"], answers["gives"]) == (6, {"main": 18}, "Example")
    assert beliefs["gives"] == "TopLogprobs"
    assert [arm["arm"] for arm in plan.arms] == ["text", "beliefs"]
    assert check(load_recipe(recipe, folder=folder), limit=2).branches[0]["requests"] == {"main": 6}


def changed(change: Callable[[Recipe], object]) -> Recipe:
    recipe = trial_recipe()
    change(recipe)
    return recipe


REFUSED: dict[str, tuple[Callable[[Recipe], object], str]] = {
    "unknown backend": (
        lambda r: r["teachers"]["main"].update(backend="scriptd"),
        "teachers.main: no backend 'scriptd'; did you mean 'scripted'?",
    ),
    "unknown knob of a teacher": (
        lambda r: r["teachers"]["main"].update(repl="x"),
        "teachers.main: scripted has no knob 'repl'; did you mean 'reply'",
    ),
    "unknown sampling": (
        lambda r: r["teachers"]["pocket"]["sampling"].update(temprature=1),
        "teachers.pocket.sampling: unknown key 'temprature'; did you mean 'temperature'",
    ),
    "sampling of another type": (
        lambda r: r["teachers"]["pocket"]["sampling"].update(n="two"),
        "teachers.pocket.sampling.n: must be a whole number above 0, not 'two'",
    ),
    "a teacher called student": (
        lambda r: r["teachers"].update(student={"backend": "pocket"}),
        "teachers.student: this name means the recipe",
    ),
    "unknown source of seeds": (
        lambda r: r["knowledge"]["answers"]["seeds"].update(do="fiel"),
        "knowledge.answers.seeds: no seeds named 'fiel'; did you mean 'file'",
    ),
    "a needed knob left out": (
        lambda r: r["knowledge"]["answers"]["seeds"].pop("path"),
        "knowledge.answers.seeds: file needs path",
    ),
    "unknown elicitor": (
        lambda r: r["knowledge"]["answers"]["elicit"][0].update(do="labelling.answer"),
        "no elicit named 'labelling.answer'; did you mean 'labeling.answer'",
    ),
    "unknown knob of an elicitor": (
        lambda r: r["knowledge"]["answers"]["elicit"][0].update(instructions="x"),
        "labeling.answer has no knob 'instructions'; did you mean 'instruction'",
    ),
    "a knob of another type": (
        lambda r: r["knowledge"]["answers"]["elicit"][0].update(keep_instruction="yes"),
        "knowledge.answers.elicit[0].keep_instruction: must be bool, not 'yes'",
    ),
    "a truth value for a number": (
        lambda r: r["knowledge"]["beliefs"]["elicit"][1].update(k=True),
        "knowledge.beliefs.elicit[1].k: must be int, not True",
    ),
    "no such teacher": (
        lambda r: r["knowledge"]["answers"]["elicit"][0].update(teacher="mian"),
        "no teacher 'mian'; did you mean 'main'",
    ),
    "no teacher at all": (
        lambda r: r["knowledge"]["answers"]["elicit"][0].pop("teacher"),
        "knowledge.answers.elicit[0]: labeling.answer needs `teacher:`",
    ),
    "a step before the one it needs": (
        lambda r: r["knowledge"]["beliefs"]["elicit"].reverse(),
        "feature.top_logprobs reads Example, but the step before it gives Seed; reorder the steps",
    ),
    "unknown selector": (
        lambda r: r["knowledge"]["answers"]["select"][0].update(do="quality.corect"),
        "no select named 'quality.corect'; did you mean 'quality.correct'",
    ),
    "unknown grader": (
        lambda r: r["knowledge"]["answers"]["select"][0]["grader"].update(do="math.eqal"),
        "knowledge.answers.select[0].grader: no graders named 'math.eqal'; did you mean 'math.equal'",
    ),
    "unknown knob of a grader": (
        lambda r: r["knowledge"]["answers"]["select"][0]["grader"].update(tol=1),
        "math.equal has no knob 'tol'",
    ),
    "log-probs of a black box": (
        lambda r: r["knowledge"]["beliefs"]["elicit"][1].update(teacher="main"),
        "teacher 'main' (backend scripted) cannot tell log-probs of given text; backends that can: pocket",
    ),
    "logits of a black box": (
        lambda r: r["arms"]["text"]["train"]["objectives"][0].update(do="divergence.forward_kl", teacher="main"),
        "teacher 'main' (backend scripted) cannot give its logits (a local model)",
    ),
    "beliefs that nobody elicited": (
        lambda r: r["arms"]["text"]["train"]["objectives"][0].update(do="divergence.forward_kl"),
        "divergence.forward_kl needs teacher_beliefs, which Example records do not give",
    ),
    "learning from seeds": (
        lambda r: r["knowledge"]["answers"].update(elicit=[], select=[]),
        "which Seed records do not give",
    ),
    "unknown objective": (
        lambda r: r["arms"]["text"]["train"]["objectives"][0].update(do="supervised.crossentropy"),
        "arms.text.train.objectives[0]: no objectives named 'supervised.crossentropy'; did you mean",
    ),
    "a branch that is not there": (
        lambda r: r["arms"]["text"]["train"]["objectives"][0].update(on="answer"),
        "arms.text.train.objectives[0].on: no branch 'answer'; did you mean 'answers'",
    ),
    "rollouts on nothing": (
        lambda r: r["arms"]["text"]["train"].update(rollouts={"on": "nothing"}),
        "rollouts.on: no branch 'nothing'",
    ),
    "unknown training argument": (
        lambda r: r["arms"]["text"]["train"]["args"].update(learning_rat=1),
        "arms.text.train.args: no setting 'learning_rat'; did you mean 'learning_rate'",
    ),
    "a training argument that is no number": (
        lambda r: r["arms"]["text"]["train"]["args"].update(learning_rate="fast"),
        "arms.text.train.args.learning_rate: 'fast' is not a number",
    ),
    "no student to train": (lambda r: r.pop("student"), "student: missing; `train:` needs a student"),
    "a student folder that is not there": (
        lambda r: r["student"].update(model="./nowhere"),
        "student.model: './nowhere' is no folder",
    ),
    "two evaluations of one name": (
        lambda r: r["evaluate"].append(deepcopy(r["evaluate"][0])),
        "evaluate: two entries are called 'qa'; give each a `name:`",
    ),
    "an evaluation by nobody": (
        lambda r: r["evaluate"][0].update(teacher="nobody"),
        "evaluate[0]: no teacher 'nobody'",
    ),
    "a final arm that is not there": (lambda r: r.update(final="txet/1"), "final: no arm 'txet/1'"),
    "a held-out file that is not there": (
        lambda r: r["evaluate"][0].update(path="none.jsonl"),
        "none.jsonl: no such file",
    ),
    "a value that a knob does not know": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "dedup.minhash", "on": "answer"}),
        "knowledge.answers.select[1].on: 'answer' is not known; known: both, prompt, response",
    ),
    "a text where a list is wanted": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "form.leaked", "phrases": "Answer:"}),
        "select[1].phrases: must be a list, not 'Answer:'; write it in brackets: [Answer:]",
    ),
    "a grader by its bare name": (
        lambda r: r["knowledge"]["answers"]["select"][0].update(grader="math.equal"),
        "select[0].grader: a function is named with its knobs, as {do: math.equal}",
    ),
    "no time at all": (
        lambda r: r["knowledge"]["answers"]["select"][0]["grader"].update(seconds=0),
        "select[0].grader.seconds: must be above 0, not 0",
    ),
    "a folder of a model that is not there": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "dedup.semantic", "model": "./nowhere"}),
        "select[1].model: './nowhere' is no folder",
    ),
    "a list where a mapping is wanted": (
        lambda r: r["knowledge"]["answers"]["elicit"].append(
            {"do": "feedback.rate", "teacher": "main", "aspects": ["a"]}
        ),
        "elicit[1].aspects: must be Mapping[str, str], not ['a']",
    ),
    "a range from its end": (
        lambda r: r["knowledge"]["answers"]["elicit"].append(
            {"do": "feedback.rate", "teacher": "main", "aspects": {"a": "b"}, "low": 6}
        ),
        "elicit[1]: low is 6 and high is 5; high must not be below low",
    ),
    "none of what there is at least one of": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "dedup.minhash", "shingle": 0}),
        "select[1].shingle: must be 1 or more, not 0",
    ),
    "a share above all": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "dedup.rouge", "threshold": 1.5}),
        "select[1].threshold: must be above 0 and at most 1, not 1.5",
    ),
    "a selector that refuses what it is told": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "privacy.personal_data", "kinds": ["emial"]}),
        "select[1]: privacy.personal_data: no kind 'emial'; did you mean 'email'",
    ),
    "an evaluation set that is not there": (
        lambda r: r["knowledge"]["answers"]["select"].append({"do": "decontaminate.ngrams", "path": "none.jsonl"}),
        "none.jsonl: no such file",
    ),
    "seeds that are not there": (
        lambda r: r["knowledge"]["answers"]["seeds"].update(path="none.jsonl"),
        "none.jsonl: no such file",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_anything_is_spent(what: str, folder: Path) -> None:
    change, said = REFUSED[what]
    assert said in refused(changed(change), folder)


def test_an_empty_seeds_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("")
    assert "seeds.jsonl: holds no row; a branch needs at least one seed" in refused(knowledge(), tmp_path)


def test_every_row_of_the_seeds_is_read_before_the_first_request(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "seeds.jsonl", [*sums(50), {"prompt": ""}])
    assert "row 51: the prompt is empty" in refused(knowledge(), tmp_path)


def test_a_student_folder_without_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for model in ("notes", "./notes", str(tmp_path / "notes")):
        assert "holds no model (no config.json)" in refused(
            changed(lambda r, m=model: r["student"].update(model=m)), tmp_path
        )


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base student with a tokenizer that cuts text otherwise: one merge fewer."""
    import json

    made = tmp_path_factory.mktemp("stranger") / "model"
    shutil.copytree(student_path(), made)
    state = json.loads((made / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["merges"].pop()
    (made / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    return made


@pytest.mark.parametrize("how", ["stored", "online"])
def test_tokenizers_that_differ_are_refused_where_beliefs_are_compared(how: str, folder: Path, stranger: Path) -> None:
    recipe = changed(lambda r: r["student"].update(model=str(stranger)))
    if how == "stored":
        recipe["arms"].pop("text")
    else:
        recipe["arms"] = {"text": recipe["arms"]["text"]}
        recipe["arms"]["text"]["train"]["objectives"] = [
            {"do": "fusion.mean_of_logits", "on": "answers", "teacher": ["pocket"]}
        ]
    said = refused(recipe, folder)
    assert "teacher 'pocket' and the student cut text with different tokenizers" in said
    assert ".objectives[0]" in said


def test_a_divergence_is_aligned_where_tokenizers_differ(folder: Path, stranger: Path) -> None:
    recipe = changed(lambda r: r["student"].update(model=str(stranger)))
    objectives = [{"do": "divergence.forward_kl", "on": "answers", "teacher": "pocket"}]
    recipe["arms"] = {"text": {"train": {**recipe["arms"]["text"]["train"], "objectives": objectives}}}
    check(load_recipe(recipe, folder=folder))


def test_tokenizers_that_differ_are_nobodys_business_where_text_is_learned(folder: Path, stranger: Path) -> None:
    recipe = changed(lambda r: r["student"].update(model=str(stranger)))
    recipe["arms"].pop("beliefs")
    check(load_recipe(recipe, folder=folder))


def test_the_same_tokenizer_in_two_folders_is_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher_path(), tmp_path / "copy")
    recipe = changed(
        lambda r: r["teachers"].update(pocket={"backend": "transformers", "model": str(tmp_path / "copy")})
    )
    check(load_recipe(recipe, folder=folder))


def test_the_base_student_may_teach_itself(folder: Path) -> None:
    """`teacher: student`: any elicitor becomes self-knowledge."""
    check(
        load_recipe(changed(lambda r: r["knowledge"]["answers"]["elicit"][0].update(teacher="student")), folder=folder)
    )
    recipe = knowledge()
    recipe["knowledge"]["answers"]["elicit"][0]["teacher"] = "student"
    assert "`teacher: student` needs a `student:`" in refused(recipe, folder)


def test_plain_text_is_learned_without_an_elicitor(folder: Path) -> None:
    (folder / "text.txt").write_text("Once upon a time.", encoding="utf-8")
    recipe = changed(lambda r: r["knowledge"].update(answers={"seeds": {"do": "texts", "path": "text.txt"}}))
    plan = check(load_recipe(recipe, folder=folder))
    assert plan.branches[0]["gives"] == "Example"
    assert plan.branches[0]["prompt_chars"] == len("Once upon a time.")


def test_your_own_functions_are_checked_like_the_packages(folder: Path) -> None:
    (folder / "own.py").write_text(
        "def shout(seeds, teacher: 'Generates', *, volume: int):\n    '''Louder.'''\n    yield from ()\n"
    )
    entry = {"do": "own.py:shout", "teacher": "main"}
    recipe = changed(lambda r: r["knowledge"]["answers"].update(elicit=[entry]))
    assert "own.py:shout needs volume" in refused(recipe, folder)
    entry["volume"] = "high"
    assert "elicit[0].volume: must be int, not 'high'" in refused(recipe, folder)


@pytest.mark.parametrize(("rank", "said"), [(4, True), (32, False)])
def test_an_adapter_too_small_for_a_teachers_distribution_is_said(rank: int, said: bool, folder: Path) -> None:
    """P35: only where a teacher's distribution is learned, which a few ranks cannot hold."""

    def small(recipe: Recipe) -> None:
        recipe["student"]["lora"] = {"rank": rank}
        recipe["arms"]["beliefs"]["train"]["objectives"][0] |= {"teacher": "pocket", "on": "answers"}

    found = check(load_recipe(changed(small), folder=folder)).warnings
    assert any("(P35)" in warning for warning in found) == said
    assert not any("(P35)" in w for w in check(load_recipe(changed(lambda recipe: None), folder=folder)).warnings)
