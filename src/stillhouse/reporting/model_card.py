"""The model card of a run, `student/README.md`: front matter that hubs read, plain Markdown below.

What the terms want on it stands in the manifest under `terms: {card: {fields, model_card}}`: fields for the front matter,
and a section.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.compliance.recipe_plan import POCKET
from stillhouse.papers import sha256
from stillhouse.reporting import tables
from stillhouse.reporting.markdown import HUB_ID, card, code, hub_seeds, md, reproduce, slug, table, unchecked, write
from stillhouse.reporting.reading import Arm, Branch, RunFacts, branches_of
from stillhouse.reporting.verdict import headline, role_of, scale_of
from stillhouse.train.batch import SCORERS

_PIPELINES = {"causal_lm": "text-generation", "seq2seq": "text-generation", "classifier": "text-classification"}
_PIPELINES |= {"encoder": "feature-extraction", "reranker": "text-ranking", "reward": "text-classification"}
_CLASSES = {
    "seq2seq": "AutoModelForSeq2SeqLM",
    "classifier": "AutoModelForSequenceClassification",
    "encoder": "AutoModel",
}
_CLASSES |= {"reranker": "AutoModelForSequenceClassification", "reward": "AutoModelForSequenceClassification"}


def write_model_card(facts: RunFacts) -> Path | None:
    """Writes the card into `student/`; None where no student lies."""
    home = facts.path / "student"
    return write(home / "README.md", model_card(facts)) if home.is_dir() else None


def model_card(facts: RunFacts) -> str:
    """The card of the final student: where it comes from, what it scores with intervals, how to load it."""
    from huggingface_hub import ModelCardData

    name = _student_name(facts)
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": _PIPELINES[_kind(facts)],
        "tags": ["distilled", "knowledge-distillation"],
        **_base(facts),
        **({"datasets": found} if (found := hub_seeds(facts)) else {}),
    } | facts.card.get("fields", {})  # fmt: skip
    if "distillation" in fields:
        fields["distillation"] = {**fields["distillation"], "manifest_sha256": sha256(facts.path / "manifest.json")}
    fields = _publishable(fields)
    results = list(_results(facts))
    if results:
        fields |= {
            "model_name": name,
            "eval_results": results,
            "metrics": sorted({each.metric_type for each in results}),
        }
    return card(facts, ModelCardData(**fields).to_yaml(), f"# {md(name)}", _model_body(facts))


def _publishable(fields: dict[str, Any]) -> dict[str, Any]:
    """Without names that no hub knows, such as a folder of starting weights: hubs refuse the card for them."""
    kept = dict(fields)
    if not HUB_ID.fullmatch(str(kept.get("base_model", ""))):
        kept.pop("base_model", None)
        kept.pop("base_model_relation", None)
    if "datasets" in kept:
        kept["datasets"] = [each for each in kept["datasets"] if HUB_ID.fullmatch(str(each))]
    return {key: value for key, value in kept.items() if value != []}


def _model_body(facts: RunFacts) -> Iterator[str]:
    final = facts.final or {}
    who = f"arm {code(final['arm'])}, seed {final['seed']}, " if final else ""
    run = code(facts.manifest["name"])
    yield f"A student model distilled by Stillhouse: {who}of the run {run}, starting from {_start(facts)}."
    yield f"**Did distilling help?** {md(headline(facts).sentence)}"
    yield from (md(line) for line in headline(facts).more)
    if _score_rows(facts):
        yield "## Evaluation"
        yield "Means over held-out items with 95 % intervals over seeds and items; the same items for everybody."
        yield table(("Task", "Who", "Mean", "95 % interval", "Seeds", "Items"), _score_rows(facts))
    arm = (facts.final or {}).get("arm")
    if kept := [gate for gate in tables.gates(facts) if gate.arm == arm]:
        yield "What it may have lost of what the starting weights could do:"
        head = ("Task", "May lose", "Change", "95 % interval", "Outcome")
        yield table(head, [(md(g.task), g.allowed, g.change, g.interval, g.reading) for g in kept])
    yield "## How it was trained"
    yield _trained(facts)
    if said := says(facts):
        yield f"**It writes no text.** {md(said)}"
    yield "## How to load it"
    kind = _CLASSES.get(_kind(facts), "AutoModelForCausalLM")
    yield (
        f'```python\nfrom transformers import AutoTokenizer, {kind}\n\ntokenizer = AutoTokenizer.from_pretrained("student")\n'
        f'model = {kind}.from_pretrained("student")\n```'
    )
    yield facts.card.get("model_card") or unchecked(facts)
    yield "## Reproduce"
    yield reproduce(facts)


def _kind(facts: RunFacts) -> str:
    return facts.recipe.student.kind if facts.recipe and facts.recipe.student else "causal_lm"


def says(facts: RunFacts) -> str:
    """What a student gives that is no text; "" for one that writes."""
    kind = _kind(facts)
    if kind not in SCORERS:
        return ""
    assert facts.recipe is not None and facts.recipe.student is not None
    if kind == "encoder":
        return "It is an encoder: it gives a vector for a text; near texts have a cosine near 1."
    labels = ", ".join(facts.recipe.student.labels)
    gives = f"the class of a prompt: {labels}" if labels else "one number for a prompt with an answer, higher is better"
    return f"It is a {kind}: it gives {gives}."


def _student_name(facts: RunFacts) -> str:
    """The name that the terms may have a say in, else the run's."""
    return str((facts.manifest.get("use") or {}).get("student_name") or facts.manifest["name"])


def _base(facts: RunFacts) -> dict[str, Any]:
    """The starting weights as a hub knows them; a folder of the user's own has no name there."""
    model = facts.recipe.student.model if facts.recipe and facts.recipe.student else ""
    model = POCKET["student"] if model == "pocket" else model
    if not HUB_ID.fullmatch(model):
        return {}
    return {"base_model": model, "base_model_relation": "finetune"}


def _start(facts: RunFacts) -> str:
    known = _base(facts).get("base_model")
    if known:
        return code(known)
    model = facts.recipe.student.model if facts.recipe and facts.recipe.student else ""
    return f"{code(Path(model).name)} (a local folder)" if model else "weights that are not recorded"


def _results(facts: RunFacts) -> Iterator[Any]:
    """The final arm's means for the front matter; the interval stands in the name, where the format has no place for it."""
    from huggingface_hub import EvalResult

    scores = facts.scores or {}
    final = (facts.final or {}).get("arm")
    for task in scores.get("tasks", []):
        row = next((r for r in scores["summary"] if r["task"] == task["task"] and r["arm"] == final), None)
        if row is None:
            continue
        scale = scale_of(task)
        interval = f"95 % interval {row['low']:.4f} to {row['high']:.4f}, {row['seeds']} seeds, {row['items']} items"
        yield EvalResult(
            task_type=_PIPELINES[_kind(facts)],
            dataset_type=slug(str(task["task"])),
            dataset_name=slug(Path(str(task.get("knobs", {}).get("path") or task["task"])).name),
            metric_type=slug(str(task.get("metric") or "score")),
            metric_value=round(row["mean"], 6),
            metric_name=f"mean {'score' if scale.percent else 'negative log-likelihood per token'} ({interval})",
        )


def _score_rows(facts: RunFacts) -> list[tuple[str, ...]]:
    scores = facts.scores or {}
    rows: list[tuple[str, ...]] = []
    for task in scores.get("tasks", []):
        scale = scale_of(task)
        for row in scores["summary"]:
            if row["task"] == task["task"]:
                who = code(row["arm"]) + {"base": " (untaught)", "control": " (control)"}.get(
                    role_of(facts, row["arm"]), ""
                )
                ends = f"{scale.bare(row['low'])} to {scale.bare(row['high'])}"
                mean = md(scale.value(row["mean"]))
                rows.append((md(row["task"]), who, mean, ends, str(row["seeds"]), str(row["items"])))
    return rows


def _trained(facts: RunFacts) -> str:
    final = (facts.final or {}).get("arm")
    arm = facts.arms.get(final or "")
    seen = next((each for each in tables.tokens_seen(facts) if each.arm == final), None)
    lines = [f"- Objectives: {', '.join(code(each) for each in arm.objectives)}"] if arm else []
    if seen:
        lines.append(
            f"- {seen.steps:,.0f} steps, {seen.input_tokens:,.0f} input tokens, {seen.target_tokens:,.0f} target tokens per seed"
        )
        lines += [
            f"- Compared with {code(name)}, which has another tokenizer, at {share:.1%} of the target tokens"
            for name, share in seen.coverage.items()
        ]
    for name, who in facts.teachers().items():
        if arm is None or name in arm.teachers:
            lines.append(f"- Teacher {code(name)}: {md(tables.identity(who))}")
    read = [b for b in branches_of(facts.manifest) if arm is None or _read_by(b, arm)]
    lines += [f"- Data {code(b.name)}: {b.kept:,} rows kept of {b.seeds:,} seeds" for b in read]
    return "\n".join(lines)


def _read_by(branch: Branch, arm: Arm) -> bool:
    """An arm that words a branch differently has its own `<branch>@<arm>`; one whose student wrote it `<branch>@<arm>.<seed>`."""
    name, _, owner = branch.steps[0]["branch"].partition("/")[0].partition("@")
    return name in arm.reads and (owner in ("", arm.name) or owner.rpartition(".")[0] == arm.name)
