"""The checklist's rows that are about the whole: every kind of knowledge, objective and loop is in some shipped recipe."""

from pathlib import Path

import pytest
from scripted_recipes import trained

from stillhouse.check import check
from stillhouse.recipe import load_recipe, shipped_recipes
from stillhouse.resolve import names, signature

RECIPES = {name: load_recipe(name).recipe for name in shipped_recipes()}
ELICITED = {entry.do for recipe in RECIPES.values() for branch in recipe.knowledge.values() for entry in branch.elicit}
LEARNT = {entry.do for recipe in RECIPES.values() for phase in recipe.train for entry in phase.objectives}


def gives(kind: str, name: str) -> str:
    return signature(kind, name, folder=Path(), where="test").returns


@pytest.mark.parametrize("kind", ["labeling", "expansion", "curation", "feature", "feedback", "self_knowledge"])
def test_each_kind_of_elicitation_is_asked_for(kind: str) -> None:
    """C02: Eq. 3-8; x and y in one call and in two."""
    assert {name for name in ELICITED if name.startswith(f"{kind}.")}
    assert {"expansion.one_call", "expansion.self_instruct", "curation.from_code", "curation.questions"} <= ELICITED


@pytest.mark.parametrize("kind", ["supervised", "divergence", "ranking"])
def test_families_of_objectives_are_learnt_with(kind: str) -> None:
    """C03: the families that need no model beside the pocket ones."""
    assert {name for name in LEARNT if name.startswith(f"{kind}.")}


def test_the_families_of_the_survey_are_there() -> None:
    """C03, C04: the names of 12.4; white-box objectives beside them."""
    known = set(names("objectives"))
    assert known >= {
        "supervised.cross_entropy", "divergence.forward_kl", "divergence.reverse_kl", "divergence.jensen_shannon",
        "similarity.l1", "similarity.l2", "similarity.cross_entropy", "similarity.mmd", "reinforcement.bradley_terry",
        "reinforcement.policy_gradient", "ranking.dpo", "ranking.rrhf", "ranking.pro", "minillm.minillm",
        "fusion.minimum_cross_entropy", "divergence.universal_logit", "similarity.projected",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "name", "record"),
    [
        ("preference", "feedback.compare", "Ranking"),
        ("ranking", "feedback.rank", "Ranking"),
        ("score", "feedback.rate", "Example"),
        ("step labels", "feedback.step_labels", "Example"),
        ("correction", "feedback.minimal_edit", "Example"),
        ("hard-example expansion", "feedback.hard", "Example"),
        ("distribution over answers", "feedback.option_logprobs", "Ranking"),
        ("distribution over tokens", "feature.top_logprobs", "TopLogprobs"),
    ],
)
def test_each_form_of_feedback_is_a_record(form: str, name: str, record: str) -> None:
    """C05: 3.5 (a) to (e)."""
    assert record in gives("elicit", name)


@pytest.mark.parametrize(
    "name",
    [
        "context_following/self_instruct", "nlp/star", "nlp/vote", "nlp/grow_and_improve", "alignment/self_play",
        "alignment/self_rewarding", "alignment/principles", "alignment/contrast",
    ],
)  # fmt: skip
def test_each_loop_of_self_knowledge_is_a_recipe(name: str) -> None:
    """C06, O8: Self-Instruct, STaR, LMSI, ReST, SPIN, Self-Rewarding, Self-Align, RLCD."""
    assert check(load_recipe(f"skills/{name}")).branches


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "skills/context_following/conditioned", "skills/context_following/shared_conversations", "skills/nlp/textbooks",
        "skills/nlp/rationales_and_programs", "skills/agent/trajectories", "skills/alignment/ranked_by_rule",
        "skills/alignment/society", "skills/multimodal/captioned", "verticals/finance/reports", "verticals/medical/consultations",
    ],
)  # fmt: skip
def test_a_tiny_student_learns_from_all_branches(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11, C01: several branches, phases, plain text and rankings reach the pocket student."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    run = trained(name, tmp_path)
    assert run.manifest["state"] == "done"
    assert (run.student / "model.safetensors").is_file()


def test_open_problems_are_options() -> None:
    """C09: selection (O1), several teachers (O3), trust (O6), weak to strong (O7)."""
    assert {"quality.score", "influence.ifd_by_losses", "privacy.toxic", "decontaminate.ngrams"} <= set(names("select"))
    assert {"fusion.mean_of_logits", "weak_to_strong.confidence"} <= set(names("objectives"))


def test_what_a_recipe_says_first_is_one_line() -> None:
    """C07: `still list recipes` shows it whole."""
    first = {name: path.read_text(encoding="utf-8").split("\n", 1)[0] for name, path in shipped_recipes().items()}
    assert {name: line for name, line in first.items() if not line.startswith("# ") or len(line) > 160} == {}
