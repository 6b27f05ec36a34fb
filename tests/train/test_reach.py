"""Every objective trains from YAML: a recipe is checked, its knowledge made, and a tiny student takes a few steps."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from train_helpers import make_model, make_tokenizer

import stillhouse
from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.progress import Progress
from stillhouse.recipe import load_recipe
from stillhouse.records import user
from stillhouse.resolve import names
from stillhouse.scoring import Scorer
from stillhouse.steps import Data, Teachers
from stillhouse.students import Students
from stillhouse.teachers.calls import Calls
from stillhouse.train.student import Student, save_student

TEACHER = {"on": "answers", "teacher": "main"}
OTHER = {"on": "answers", "teacher": "foreign"}  # cuts text into other tokens
PAIR = {"on": "answers", "teacher": ["main", "second"]}
RANKED = {"on": "ranked"}
OWN = {"rollouts": {"on": "answers", "max_new_tokens": 6}}
GRADED = {"rollouts": {**OWN["rollouts"], "samples": 4, "reward": {"do": "rewards.py:vowels"}}}
REWARD: dict[str, Any] = {"student": {"kind": "reward"}}
ENCODER: dict[str, Any] = {"student": {"kind": "encoder"}}
VECTORS = {"on": "answers", "teacher": "vectors"}

# objective -> what its entry says, and what the phase and the student need beside it
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cross_tokenizer.hybrid": (OTHER, {}),
    "cross_tokenizer.span_likelihood": (OTHER, {}),
    **{
        f"divergence.{name}": (TEACHER, {})
        for name in (
            "adaptive_kl", "alpha_beta", "forward_kl", "generalised_jensen_shannon", "jensen_shannon", "reverse_kl",
            "skew_forward_kl", "skew_reverse_kl", "total_variation",
        )
    },
    "divergence.universal_logit": ({**OTHER, "align": "count"}, {}),
    **{f"embedding.{name}": (VECTORS, ENCODER) for name in ("cosine", "similarity_kl", "squared")},
    "embedding.in_batch": ({"on": "answers"}, ENCODER),
    "embedding.margin_mse": (RANKED, ENCODER),
    "fusion.cross_entropy_weighted": (PAIR, {}),
    "fusion.mean_of_logits": ({**PAIR, "divergence": {"do": "divergence.reverse_kl", "temperature": 2.0}}, {}),
    "fusion.mean_of_probabilities": (PAIR, {}),
    "fusion.minimum_cross_entropy": (PAIR, {}),
    "fusion.routed": ({**PAIR, "route": "expert"}, {}),
    "keeping.l2_to_start": ({"on": "answers"}, {"beside": {"do": "supervised.cross_entropy", "on": "answers"}}),
    "minillm.minillm": ({"on": "rollouts", "teacher": "main"}, OWN),
    "quantisation.token_contrastive": (TEACHER, {}),
    "quantisation.token_scaled": (TEACHER, {}),
    "ranking.contrastive": (
        {"on": "rollouts", "teacher": "main"}, {"rollouts": {**OWN["rollouts"], "beside": True}},
    ),
    **{
        f"ranking.{name}": (RANKED, {})
        for name in ("dpo", "hinge", "ipo", "knowpat", "pro", "pro_weighted", "rrhf", "simpo")
    },
    "ranking.kto": ({"on": "answers", "score_column": "good"}, {}),
    "ranking.stable_alignment": ({**RANKED, "ratio": 1.0, "margin": 1.0, "scale": 3.0}, {}),
    "ranking.lambdaloss": (RANKED, {"student": {"kind": "reranker"}}),
    "ranking.listnet": (RANKED, {"student": {"kind": "reranker"}}),
    "ranking.ranknet": (RANKED, {"student": {"kind": "reranker", "lora": {"rank": 4}}}),
    "reinforcement.bradley_terry": (RANKED, REWARD),
    "reinforcement.bradley_terry_listwise": (RANKED, REWARD),
    "reinforcement.bradley_terry_soft": (RANKED, REWARD),
    "reinforcement.step_rewards": ({"on": "answers"}, REWARD),
    "reinforcement.group_advantage": ({"on": "rollouts"}, GRADED),
    "reinforcement.leave_one_out": ({"on": "rollouts"}, GRADED),
    "reinforcement.policy_gradient": ({"on": "rollouts"}, GRADED),
    "reinforcement.ppo": ({"on": "rollouts"}, GRADED),
    "reinforcement.reference_kl": (
        {"on": "rollouts", "estimator": "k3"},
        {**OWN, "init": "second"},  # nothing to say of the student that is its own reference
    ),
    "reinforcement.rlmec": ({"on": "rollouts", "teacher": "rewriter"}, GRADED),
    "reinforcement.sampled_reverse_kl": ({"on": "rollouts", "teacher": "main"}, OWN),
    "similarity.attention_relations": ({**TEACHER, "relations": "keys", "heads": 2}, {}),
    "similarity.cka": (TEACHER, {}),
    **{f"similarity.{name}": (TEACHER, {}) for name in ("cosine", "cross_entropy", "l1", "l2", "mmd")},
    "similarity.projected": ({"on": "answers", "teacher": "wide", "distance": {"do": "similarity.cosine"}}, {}),
    "similarity.task_aware": ({"on": "answers", "teacher": "wide", "stage": 1}, {}),
    "supervised.cross_entropy": ({"on": "answers"}, {}),
    "supervised.edited": ({"on": "edits"}, {}),
    "supervised.figa": ({"on": "edits"}, {}),
    "weak_to_strong.confidence": (TEACHER, {}),
    "weak_to_strong.product_of_experts": (TEACHER, {}),
}  # fmt: skip

# the value of a policy gradient means nothing, and that of one term of an equilibrium need not fall
ONLY_GRADIENTS = {
    "keeping.l2_to_start", "minillm.minillm", "ranking.contrastive", "reinforcement.reference_kl",
    "reinforcement.rlmec", "reinforcement.sampled_reverse_kl",
    "reinforcement.group_advantage", "reinforcement.leave_one_out", "reinforcement.policy_gradient", "reinforcement.ppo",
}  # fmt: skip

REWARDS = """
from stillhouse.graders import Grade

def vowels(responses, references):
    return [Grade(sum(letter in "aeiou" for letter in each) / max(len(each), 1), "counted") for each in responses]
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Data]]:
    """Models of a few thousand weights, a recipe without training, and its knowledge."""
    folder = tmp_path_factory.mktemp("reach")
    tokenizer, foreign = make_tokenizer(), make_tokenizer(more="ABC")
    models = {"student": 0, "main": 1, "second": 2}
    for name, seed in models.items():
        save_student(Student(make_model(tokenizer, seed), tokenizer), folder / name)
    save_student(Student(make_model(tokenizer, 3, hidden_size=24), tokenizer), folder / "wide")
    save_student(Student(make_model(foreign, 4), foreign), folder / "foreign")
    long = make_model(tokenizer, 5, max_position_embeddings=512)  # reads an answer twice, and what is asked about it
    save_student(Student(long, tokenizer), folder / "rewriter")
    rows = []
    for number in range(16):
        word = "abcdefghijklmnop"[number]
        rows.append(
            {
                "prompt": f"say {word} {number}", "answer": f"{word} is\nhere {number}", "bad": f"{word} is\nnot {number}",
                "worst": "none", "scores": [3, 2, 1], "good": number % 2, "expert": ("main", "second")[number % 2],
                "step_labels": [1, number % 2],
            }
        )  # fmt: skip
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    columns = ["answer", "bad", "worst", "scores", "good", "expert", "step_labels"]
    seeds = {"do": "file", "path": "seeds.jsonl", "reference": "answer", "columns": columns}
    ranked = {"do": "preferences.known", "responses": ["answer", "bad", "worst"], "scores": "scores"}
    recipe = {
        "name": "reach",
        "use": {"purpose": "research", "distributes": []},
        "teachers": {
            name: {"backend": "transformers", "model": str(folder / name)}
            for name in ("main", "second", "wide", "foreign", "rewriter")
        }
        | {"vectors": {"backend": "encoder", "model": str(folder / "main")}},
        "knowledge": {
            "answers": {"seeds": seeds, "elicit": [{"do": "labeling.reference"}]},
            "ranked": {"seeds": seeds, "elicit": [ranked]},
            "edits": {"seeds": seeds, "elicit": [{"do": "preferences.known", "responses": ["answer", "bad"]}]},
        },
        "student": {"model": str(folder / "student")},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: recipe[key] for key in ("name", "use", "knowledge")}))
    run = stillhouse.distill(path, out=folder / "run", quiet=True)
    branches = {
        name: Data(sorted((run.path / "knowledge" / name).glob("*/out.jsonl"))[-1], name)
        for name in recipe["knowledge"]
    }
    return folder, recipe, branches


def trained(ground: Any, out: Path, train: Any, student: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of a student trained by the recipe with this part."""
    folder, recipe, branches = ground
    path = out / "recipe.yaml"
    told = {**recipe, "train": train, "student": {**recipe["student"], **(student or {})}}
    path.write_text(yaml.safe_dump(told))
    (out / "seeds.jsonl").write_text((folder / "seeds.jsonl").read_text())
    (out / "rewards.py").write_text(REWARDS)
    loaded = load_recipe(path)
    check(loaded)
    with Progress(out, quiet=True) as progress:
        work = Students(out, loaded.folder, progress, {"main": branches})
        for arm, one in loaded.arms().items():
            work.train(arm, one, 0, Teachers(one, Calls(None, run="reach")))
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def phase(entries: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    args = {"max_steps": 6, "learning_rate": 0.01, "per_device_train_batch_size": 16, "logging_steps": 1}
    return {"objectives": entries, "args": args, **more}


def test_no_objective_is_left_out() -> None:
    assert sorted(RECIPES) == names("objectives")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_it_trains_from_a_recipe(name: str, ground: Any, tmp_path: Path) -> None:
    """The loss is finite at every step, gradients arrive at the student, and the loss falls where its value means that."""
    entry, more = RECIPES[name]
    entries = [{"do": name, **entry}]
    if "beside" in more:
        entries.append(more["beside"])
    train: Any = phase(entries, **{key: more[key] for key in more if key == "rollouts"})
    if "init" in more:
        train = [phase([{"do": "supervised.cross_entropy", "on": "answers"}]), train]
    rows = trained(ground, tmp_path, train, more.get("student"))
    rows = [row for row in rows if row["phase"] == rows[-1]["phase"]]
    losses = [row[f"loss/{name} on {entry['on']}"] for row in rows]
    assert len(losses) == 6
    assert all(math.isfinite(loss) for loss in losses)
    assert max(row["grad_norm"] for row in rows) > 1e-6
    if name not in ONLY_GRADIENTS:
        assert losses[-1] < losses[0]


CUT = (
    "cross_tokenizer.hybrid", "cross_tokenizer.span_likelihood", "fusion.routed", "ranking.contrastive",
    "reinforcement.bradley_terry", "reinforcement.policy_gradient", "reinforcement.step_rewards",
    "similarity.attention_relations", "supervised.edited", "supervised.figa",
)  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_a_step_is_the_same_however_it_is_cut(name: str, ground: Any, tmp_path: Path) -> None:
    """P06: 16 rows at once and four times four give the same loss and gradient, whatever is counted."""
    entry, more = RECIPES[name]
    rows = []
    for pieces in (1, 4):
        train = phase([{"do": name, **entry}], **{key: more[key] for key in more if key == "rollouts"})
        train["args"] |= {"max_steps": 1, "per_device_train_batch_size": 16 // pieces}
        train["args"]["gradient_accumulation_steps"] = pieces
        (tmp_path / str(pieces)).mkdir()
        rows.append(trained(ground, tmp_path / str(pieces), train, more.get("student"))[-1])
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-4, abs=1e-6)
    assert rows[1]["grad_norm"] == pytest.approx(rows[0]["grad_norm"], rel=1e-3)


def test_the_filters_of_ted_go_on_to_the_next_phase(ground: Any, tmp_path: Path) -> None:
    """R29: in stage 1 the student does not change; stage 2 begins with the filters that stage 1 learned."""
    entry = {"do": "similarity.task_aware", "on": "answers", "teacher": "wide"}
    rows = trained(ground, tmp_path, [phase([{**entry, "stage": 1}]), phase([{**entry, "stage": 2}])])
    first = [row["loss"] for row in rows if row["phase"] == 0]
    second = [row["loss"] for row in rows if row["phase"] == 1]
    assert first[-1] < first[0]
    assert second[-1] < second[0]
    plain = phase([{"do": "supervised.cross_entropy", "on": "answers"}])
    ends = []
    for name, train in {"with": [plain, phase([{**entry, "stage": 1}])], "without": [plain]}.items():
        (tmp_path / name).mkdir()
        trained(ground, tmp_path / name, train)
        ends.append(load_file(tmp_path / name / "students" / "main" / "0" / "model.safetensors"))
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    with pytest.raises(RecipeError, match="put a phase before this one"):
        trained(ground, tmp_path / "with", phase([{**entry, "stage": 2}]))


def test_a_reward_model_prefers_what_it_was_taught_to_prefer(ground: Any, tmp_path: Path) -> None:
    """Eq. 12, R36: saved, loaded by its own scorer, right on the pairs it saw."""
    more = phase([{"do": "reinforcement.bradley_terry", "on": "ranked"}])
    more["args"]["max_steps"] = 40
    trained(ground, tmp_path, more, {"kind": "reward"})
    scorer = Scorer(tmp_path / "students" / "main" / "0")
    pairs = [
        (user(f"say {word} {n}"), f"{word} is\n{said} {n}")
        for n, word in enumerate("abcdefgh")
        for said in ("here", "not")
    ]
    scores = scorer.scores(pairs)
    assert sum(good > bad for good, bad in zip(scores[::2], scores[1::2])) >= 7


def test_a_classifier_learns_its_labels(ground: Any, tmp_path: Path) -> None:
    folder, recipe, branches = ground
    rows = [{"prompt": f"is {n} odd", "label": ("no", "yes")[n % 2]} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seeds = {"do": "file", "path": str(tmp_path / "rows.jsonl"), "reference": "label"}
    labels = {"labels": {"seeds": seeds, "elicit": [{"do": "labeling.reference"}]}}
    made = {"name": "labels", "use": recipe["use"], "knowledge": labels}
    run = stillhouse.distill(made, out=tmp_path / "run", quiet=True)
    found = sorted((run.path / "knowledge" / "labels").glob("*/out.jsonl"))[-1]
    more = phase([{"do": "supervised.cross_entropy", "on": "labels"}])
    more["args"] |= {"max_steps": 40, "learning_rate": 0.02}
    wider = {**recipe, "knowledge": {**recipe["knowledge"], **labels}}
    told = {"kind": "classifier", "labels": ["no", "yes"]}
    trained((folder, wider, {**branches, "labels": Data(found, "labels")}), tmp_path, more, told)
    scorer = Scorer(tmp_path / "students" / "main" / "0")
    assert scorer.labels == ["no", "yes"]
    answers = scorer.classes([user(row["prompt"]) for row in rows])
    assert sum(answer == row["label"] for answer, row in zip(answers, rows)) >= 7
