"""Trainings that could not be right are refused, those that are known to lose are warned of; each in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import sums, write_jsonl

from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.recipe import load_recipe

KL = {"do": "divergence.forward_kl", "on": "x", "teacher": "main"}
CE = {"do": "supervised.cross_entropy", "on": "x"}


def plan(folder: Path, *entries: dict[str, Any], student: Any = None, evaluate: Any = None, **phase: Any) -> Any:
    write_jsonl(folder / "seeds.jsonl", sums(4))
    pair = {"do": "preferences.known", "responses": ["prompt", "reference"]}
    recipe = {
        "name": "sound", "teachers": {"main": {"backend": "pocket"}},
        "knowledge": {
            "x": {"seeds": {"do": "file", "path": "seeds.jsonl"}, "elicit": [{"do": "labeling.reference"}]},
            "pairs": {"seeds": {"do": "file", "path": "seeds.jsonl"}, "elicit": [pair]},
        },
        "student": {"model": "pocket", **(student or {})},
        "train": {"objectives": list(entries), **phase}, "evaluate": evaluate or [],
    }  # fmt: skip
    return check(load_recipe(recipe, folder=folder))


CUT = {"args": {"gradient_accumulation_steps": 2}}
QA = {"do": "qa", "path": "seeds.jsonl", "grader": {"do": "math.equal"}}
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a set of positions cut in two": (
        lambda f: plan(f, {**KL, "do": "similarity.cka"}, **CUT),
        r"train\.objectives\[0\]: similarity\.cka compares what a batch holds .* set gradient_accumulation_steps to 1",
    ),
    "mismatched answers cut in two": (lambda f: plan(f, {"do": "ranking.kto", "on": "x"}, **CUT), "set gradient_acc"),
    "filters that nobody learned": (
        lambda f: plan(f, {**KL, "do": "similarity.task_aware", "stage": 2}),
        "needs the filters that stage 1 learned; put a phase before",
    ),
    "an adapter on weights that learn": (
        lambda f: plan(f, KL, student={"lora": {"rank": 8}, "quantise": {"bits": 4}}),
        "leave out one of them",
    ),
    "a knob that no adapter has": (
        lambda f: plan(f, KL, student={"lora": {"rnak": 8}}),
        r"student\.lora: no knob 'rnak'; did you mean 'rank'",
    ),
    "an adapter without ranks": (lambda f: plan(f, KL, student={"lora": {"rank": "8"}}), r"lora\.rank: must be a whole"),
    "an adapter that drops all": (lambda f: plan(f, KL, student={"lora": {"dropout": 1}}), r"lora\.dropout: must be a"),
    "nothing left to cut": (lambda f: plan(f, KL, student={"prune": {"on": "x"}}), "say what is left: layers"),
    "pruned on nothing": (
        lambda f: plan(f, KL, student={"prune": {"on": "y", "layers": 2}}),
        r"student\.prune\.on: no branch 'y'; known: pairs, x",
    ),
    "a classifier without classes": (lambda f: plan(f, CE, student={"kind": "classifier"}), "needs its classes"),
    "an encoder that should write": (
        lambda f: plan(f, CE, student={"kind": "encoder"}),
        "a student of kind encoder learns from Example, Ranking",
    ),
    "a scorer that should write": (
        lambda f: plan(f, {"do": "ranking.dpo", "on": "pairs"}, student={"kind": "reward"}),
        "a student of kind reward learns from Ranking, Example and from objectives on its scores",
    ),
    "a writer that should score": (
        lambda f: plan(f, {"do": "reinforcement.bradley_terry", "on": "pairs"}),
        r"give the student a scoring head \(student: \{kind: reward\}",
    ),
    "a scorer asked to answer": (
        lambda f: plan(f, {"do": "ranking.ranknet", "on": "pairs"}, student={"kind": "reranker"}, evaluate=[QA]),
        "qa cannot be asked of a student of kind reranker; use one of scored.pairs",
    ),
    "a writer asked to score": (
        lambda f: plan(f, CE, evaluate=[{"do": "scored.pairs", "path": "seeds.jsonl"}]),
        "scored.pairs cannot be asked of a student of kind causal_lm",
    ),
    "a route without its column": (
        lambda f: plan(f, {**KL, "do": "fusion.routed", "teacher": ["main"]}),
        r"objectives\[0\]\.route: missing; name the column",
    ),
    "a setting of no rollouts": (
        lambda f: plan(f, KL, {**KL, "on": "rollouts"}, rollouts={"on": "x", "replai": 3}),
        "unknown key; did you mean 'replay'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(name: str, tmp_path: Path) -> None:
    call, said = REFUSED[name]
    with pytest.raises(RecipeError, match=said) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)


WARNED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "mode seeking from nothing": ({**KL, "do": "divergence.reverse_kl"}, {}, "lost even to plain text"),
    "a small batch": ({"do": "ranking.kto", "on": "x"}, {"args": {"per_device_train_batch_size": 4}}, "8 or more"),
    "counted positions": ({**KL, "align": "count"}, {}, "mean little to divergence.forward_kl"),
    "a small adapter": (KL, {"student": {"lora": {"rank": 4}}}, "P35"),
    "pruned and left alone": (CE, {"student": {"prune": {"on": "x", "layers": 2}}}, "name it as a teacher"),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_is_known_to_lose_is_said(name: str, tmp_path: Path) -> None:
    entry, more, said = WARNED[name]
    (warning,) = plan(tmp_path, entry, **more).warnings
    assert said in warning


def test_what_is_sound_is_not_warned_of(tmp_path: Path) -> None:
    assert plan(tmp_path, KL, CE).warnings == []
    assert plan(tmp_path, {**KL, "do": "divergence.reverse_kl", "on": "rollouts"}, rollouts={"on": "x"}).warnings == []
    scored = {"do": "scored.pairs", "path": "seeds.jsonl", "chosen": "prompt", "rejected": "reference"}
    told = {"student": {"kind": "reward"}, "evaluate": [scored]}
    assert plan(tmp_path, {"do": "reinforcement.bradley_terry", "on": "pairs"}, **told).warnings == []
