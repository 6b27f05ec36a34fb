"""Answers that PaLM-540B and Llama 3 really wrote, as they were published, through the shipped recipe."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stillhouse.books import audit
from stillhouse.elicit.labeling import reason
from stillhouse.errors import TermsRefused, TermsUnknown
from stillhouse.graders import math
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, Lost
from stillhouse.run import Options, Run, execute
from stillhouse.seeds import file
from stillhouse.selection.quality import correct
from stillhouse.store import read_jsonl
from stillhouse.teachers.base import Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.teachers.recorded import Teacher
from stillhouse.terms import terms_of

RECIPE = "skills/nlp/recorded_answers"
CHOICES = (
    "{{ question }}\nAnswer Choices:{% for choice in choices %}\n({{ 'abcde'[loop.index0] }}) {{ choice }}{% endfor %}"
)


def palm(seeds: Path, answers: Path, prompt: str, **changes: Any) -> list[str]:
    """The shipped recipe, pointed at published answers that follow the rows of another file."""
    given = {
        "teachers.answers.path": str(answers),
        "teachers.answers.layout": "aligned",
        "teachers.answers.seeds": str(seeds),
        "teachers.answers.prompt_field": prompt,
        "teachers.answers.model": "google/palm-540b",
        "knowledge.rationales.seeds.path": str(seeds),
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return [f"{name}={json.dumps(value)}" for name, value in given.items()]


def ran(changes: list[str], out: Path, limit: int | None = None, *, accepted: bool = False) -> Run:
    """`accepted`: with a person's acknowledgment that nobody read the terms, which holds for research and for this plan."""
    loaded = load_recipe(RECIPE, changes)
    if accepted:
        acknowledgment = {
            "type": "stillhouse-ack/v1", "plan_hash": f"sha256:{terms_of(loaded).plan.sha256}", "registry": "2026.11",
            "lifts": ["TERMS_UNREAD"], "basis": "risk_accepted", "scope": {"purpose": "research"},
            "statement": "Published with a paper; used in a test and given to nobody.", "person": "the test",
            "date": "2026-11-21", "expires": "2099-01-01",
        }  # fmt: skip
        loaded = load_recipe(RECIPE, [*changes, f"acknowledgments={json.dumps([acknowledgment])}"])
    return execute(loaded, out, Options(limit=limit, quiet=True))


def flow(run: Run) -> dict[str, Any]:
    """Rows in and out of every step, and the reasons of those that were lost."""
    return {step["step"][3:]: (step["in"], step["out"], step["lost"]) for step in run.manifest["steps"]}


def cut_off_nowhere_else(run: Run) -> None:
    for record in run.records("rationales"):
        assert isinstance(record, Example)
        assert "\n\nQ:" not in record.response
        assert "answer is" in record.response


def test_svamp_is_parsed_cut_graded_taught_and_evaluated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R20 on real text: 500 answers are recorded for the first 500 of 800 problems, most of them with a run-on."""
    folder = data / "step-by-step" / "svamp"
    changes = palm(
        folder / "svamp_train.json",
        folder / "llm" / "train_CoT_0.json",
        "input",
        knowledge__rationales__seeds__prompt="input",
        knowledge__rationales__seeds__reference="label",
        knowledge__rationales__select=[{"do": "quality.correct", "grader": {"do": "math.equal", "symbolic": False}}],
        train__args__max_steps=20,
        evaluate=[
            {
                "do": "qa", "path": str(folder / "svamp_test.json"), "prompt": "input", "reference": "label", "limit": 40,
                "grader": {"do": "math.equal", "symbolic": False}, "max_new_tokens": 48,
            }
        ],
    )  # fmt: skip
    run = ran(changes, tmp_path / "run", accepted=True)
    steps = flow(run)
    assert steps["file"] == (800, 800, {})
    assert steps["labeling.reason"] == (800, 491, {"truncated": 9, "not_recorded": 300})
    asked, kept, lost = steps["quality.correct"]
    assert (asked, kept + sum(lost.values())) == (491, 491)
    assert 0.70 < kept / 491 < 0.82  # published accuracy of this teacher on SVAMP is 79 %
    cut_off_nowhere_else(run)
    assert audit(run.path)["balanced"]
    means = {row["arm"]: row["mean"] for row in run.scores["summary"]}
    assert means.keys() == {"base", "main"}
    assert (run.student / "model.safetensors").is_file()
    with capsys.disabled():
        print(f"\nSVAMP, PaLM-540B: {steps}; 40 test problems: {means}")


def test_commonsense_qa_is_parsed_and_graded_by_choice(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data / "step-by-step" / "cqa"
    changes = palm(
        folder / "cqa_train.json",
        folder / "llm" / "train_CoT_0.json",
        "question",
        knowledge__rationales__seeds__template=CHOICES,
        knowledge__rationales__seeds__reference="answer",
        knowledge__rationales__select=[{"do": "quality.correct", "grader": {"do": "choice.equal"}}],
        train__args__max_steps=10,
        evaluate=[
            {
                "do": "qa", "path": str(folder / "cqa_test.json"), "template": CHOICES, "reference": "answer", "limit": 30,
                "grader": {"do": "choice.equal"}, "max_new_tokens": 32,
            }
        ],
    )  # fmt: skip
    run = ran(changes, tmp_path / "run", limit=800, accepted=True)
    steps = flow(run)
    asked, parsed, lost = steps["labeling.reason"]
    assert (asked, parsed + sum(lost.values())) == (800, 800)
    kept = steps["quality.correct"][1]
    assert 0.68 < kept / parsed < 0.84  # published accuracy of this teacher on CommonsenseQA is 80 %
    cut_off_nowhere_else(run)
    assert audit(run.path)["balanced"]
    means = {row["arm"]: row["mean"] for row in run.scores["summary"]}
    with capsys.disabled():
        print(f"\nCommonsenseQA, PaLM-540B: {steps}; 30 test questions: {means}")


@pytest.mark.parametrize("terms", [None, {"record": "apache-2.0"}])
def test_what_nobody_read_the_terms_of_is_not_taught(terms: Any, data: Path, tmp_path: Path) -> None:
    """The licence of the repository that the answers lie in is not the terms under which PaLM wrote them."""
    folder = data / "step-by-step" / "svamp"
    changes = palm(
        folder / "svamp_train.json", folder / "llm" / "train_CoT_0.json", "input", teachers__answers__terms=terms
    )
    with pytest.raises(TermsUnknown, match="google/palm-540b") as error:
        ran([*changes, "knowledge.rationales.seeds.prompt=input"], tmp_path / "run")
    assert error.value.exit_code == 4
    assert not (tmp_path / "run" / "knowledge").exists()


LLAMA = ("answer is", "answer:")


def test_llama_3_is_parsed_graded_and_selected_only(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its licence bars training another model on its answers; reading them and grading them it does not."""
    path = data / "step-by-step" / "llama3" / "svamp_train_llama3.json"
    teacher = Teacher(path=str(path), layout="json", prompt_field="input", response_field="gen_label", match="exact")
    seeds = list(file(path=path, prompt="input", reference="org_label"))
    with Calls(tmp_path / "store") as calls:
        asked = calls.teacher("llama", teacher, Sampling())
        results = list(reason(seeds, asked, instruction=None, final=LLAMA))
    examples = [result for result in results if isinstance(result, Example)]
    reasons = Counter(result.reason for result in results if isinstance(result, Lost))
    assert len(results) == len(seeds)
    assert len(examples) > 0.8 * len(seeds)

    def equal(responses: Any, references: Any) -> Any:
        return math.equal(responses, references, symbolic=False)

    right = sum(why is None for _, why in correct(examples, grader=equal))
    assert 0.6 < right / len(examples) < 0.95
    with capsys.disabled():
        print(f"\nSVAMP, Llama 3: {len(seeds)} answers, {len(examples)} parsed, lost {dict(reasons)}, {right} right")


def test_llama_3_is_refused_as_a_teacher_of_another_model(data: Path, tmp_path: Path) -> None:
    path = str(data / "step-by-step" / "llama3" / "svamp_train_llama3.json")
    changes = [
        f"knowledge.rationales.seeds.path={path}",
        "knowledge.rationales.seeds.prompt=input",
        "knowledge.rationales.seeds.reference=org_label",
        f"teachers.answers.path={path}",
        "teachers.answers.prompt_field=input",
        "teachers.answers.response_field=gen_label",
        "teachers.answers.model=meta-llama/Meta-Llama-3-70B-Instruct",
        "teachers.answers.terms=null",
    ]
    with pytest.raises(TermsRefused, match="improve any other large language model") as error:
        ran(changes, tmp_path / "run")
    assert error.value.exit_code == 3
    assert not (tmp_path / "run" / "knowledge").exists()


def test_the_shipped_recipe_runs_on_its_own_rows(tmp_path: Path) -> None:
    """What `still new` copies can be tried before anything of one's own is put in."""
    run = ran(["train.args.max_steps=2", "evaluate.0.limit=2"], tmp_path / "run")
    steps = flow(run)
    assert steps["labeling.reason"] == (16, 15, {"truncated": 1})
    assert steps["quality.correct"][1] == 14
    lost = [row["reason"] for _, row in read_jsonl(run.path / "knowledge/rationales/02-quality.correct/lost.jsonl")]
    assert lost == ["wrong"]
