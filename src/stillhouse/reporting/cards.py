"""The cards that go with what a run made: `student/README.md` (a model card) and `knowledge/README.md` (a data card).

Both hold the front matter that hubs read and plain Markdown below. What the terms want on them stands in the manifest
under `terms: {card: {fields, model_card, data_card}}`: fields for the front matter of the model, and a section for each.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stillhouse.compliance.recipe_plan import POCKET
from stillhouse.papers import sha256
from stillhouse.reporting import tables
from stillhouse.reporting.reading import Arm, Branch, RunFacts, branches_of
from stillhouse.reporting.verdict import headline, role_of, scale_of
from stillhouse.train.batch import SCORERS

__all__ = ["data_card", "model_card", "write_data_card", "write_model_card"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")
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
    return _write(home / "README.md", model_card(facts)) if home.is_dir() else None


def write_data_card(facts: RunFacts) -> Path | None:
    """Writes the card into `knowledge/`; None where no step has finished."""
    home = facts.path / "knowledge"
    made = home.is_dir() and bool(branches_of(facts.manifest))
    return _write(home / "README.md", data_card(facts)) if made else None


def _write(path: Path, text: str) -> Path:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)
    return path


def model_card(facts: RunFacts) -> str:
    """The card of the final student: where it comes from, what it scores with intervals, how to load it."""
    from huggingface_hub import ModelCardData

    name = _student_name(facts)
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": _PIPELINES[_kind(facts)],
        "tags": ["distilled", "knowledge-distillation"],
        **_base(facts),
        **({"datasets": found} if (found := _hub_seeds(facts)) else {}),
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
    return _card(facts, ModelCardData(**fields).to_yaml(), f"# {_md(name)}", _model_body(facts))


def _card(facts: RunFacts, front: str, title: str, sections: Iterable[str]) -> str:
    text = "\n\n".join([f"---\n{front}\n---", title, *(section.strip() for section in sections)]) + "\n"
    for place in sorted(_places(facts), key=len, reverse=True):
        text = text.replace(place, Path(place).name)
    return text


def _places(facts: RunFacts) -> set[str]:
    """Folders of this machine that the recipe names: a card that is handed out keeps the last part of them."""
    recipe = facts.recipe
    if recipe is None:
        return set()
    named = [str(branch.seeds.knobs.get("path", "")) for branch in recipe.knowledge.values()]
    named += [str(entry.knobs.get(key, "")) for entry in recipe.teachers.values() for key in ("model", "path")]
    named += [recipe.student.model] if recipe.student else []
    return {each for each in named if each.startswith("/")}


def _publishable(fields: dict[str, Any]) -> dict[str, Any]:
    """Without names that no hub knows, such as a folder of starting weights: hubs refuse the card for them."""
    kept = dict(fields)
    if not _HUB_ID.fullmatch(str(kept.get("base_model", ""))):
        kept.pop("base_model", None)
        kept.pop("base_model_relation", None)
    if "datasets" in kept:
        kept["datasets"] = [each for each in kept["datasets"] if _HUB_ID.fullmatch(str(each))]
    return {key: value for key, value in kept.items() if value != []}


def _model_body(facts: RunFacts) -> Iterator[str]:
    final = facts.final or {}
    who = f"arm {_code(final['arm'])}, seed {final['seed']}, " if final else ""
    run = _code(facts.manifest["name"])
    yield f"A student model distilled by Stillhouse: {who}of the run {run}, starting from {_start(facts)}."
    yield f"**Did distilling help?** {_md(headline(facts).sentence)}"
    yield from (_md(line) for line in headline(facts).more)
    if _score_rows(facts):
        yield "## Evaluation"
        yield "Means over held-out items with 95 % intervals over seeds and items; the same items for everybody."
        yield _table(("Task", "Who", "Mean", "95 % interval", "Seeds", "Items"), _score_rows(facts))
    arm = (facts.final or {}).get("arm")
    if kept := [gate for gate in tables.gates(facts) if gate.arm == arm]:
        yield "What it may have lost of what the starting weights could do:"
        head = ("Task", "May lose", "Change", "95 % interval", "Outcome")
        yield _table(head, [(_md(g.task), g.allowed, g.change, g.interval, g.reading) for g in kept])
    yield "## How it was trained"
    yield _trained(facts)
    if said := says(facts):
        yield f"**It writes no text.** {_md(said)}"
    yield "## How to load it"
    kind = _CLASSES.get(_kind(facts), "AutoModelForCausalLM")
    yield (
        f'```python\nfrom transformers import AutoTokenizer, {kind}\n\ntokenizer = AutoTokenizer.from_pretrained("student")\n'
        f'model = {kind}.from_pretrained("student")\n```'
    )
    yield facts.card.get("model_card") or _unchecked(facts)
    yield "## Reproduce"
    yield _reproduce(facts)


def data_card(facts: RunFacts) -> str:
    """The card of the data of a run: rows, sources, teachers, what was selected and why rows were lost."""
    from huggingface_hub import DatasetCardData

    branches = branches_of(facts.manifest)
    rows = tables.kept_rows(branches)
    synthetic = sum(branch.kept for branch in branches if branch.synthetic)
    fields: dict[str, Any] = {
        "pretty_name": str(facts.manifest["name"]),
        "size_categories": [_SIZE_NAMES[sum(rows >= size for size in _SIZES)]],
        "tags": ["synthetic", "distilled"] if synthetic else ["stillhouse"],
        **({"annotations_creators": ["machine-generated"]} if synthetic else {}),
        **({"source_datasets": found} if (found := _hub_seeds(facts)) else {}),
        "configs": [{"config_name": _slug(b.name), "data_files": _files(b)} for b in branches],
    }
    return _card(
        facts,
        DatasetCardData(**fields).to_yaml(),
        f"# Data of {_md(str(facts.manifest['name']))}",
        _data_body(facts, branches),
    )


def _data_body(facts: RunFacts, branches: list[Branch]) -> Iterator[str]:
    rows, synthetic = tables.kept_rows(branches), sum(branch.kept for branch in branches if branch.synthetic)
    share = f" ({synthetic / rows:.1%})" if rows else ""
    yield f"{synthetic:,} of {rows:,} rows{share} were written or scored by a model; the others are seeds as they were given."
    yield "## Branches"
    yield _table(
        ("Branch", "Seeds from", "Seeds", "Rows kept", "Teachers", "Steps"),
        [
            (
                _code(b.name),
                _md(_source(b)),
                f"{b.seeds:,}",
                f"{b.kept:,}",
                _md(", ".join(_teachers(b)) or "none"),
                _md(_chain(b)),
            )
            for b in branches
        ],
    )
    yield "## Selection"
    lost = [
        (_code(b.name), _md(step["step"]), f"{n:,}", _md(reason))
        for b in branches
        for step in b.steps
        for reason, n in step["lost"].items()
    ]
    yield "No row was lost." if not lost else _table(("Branch", "Step", "Rows lost", "Reason"), lost)
    yield "Lost rows lie beside the kept ones (`lost.jsonl`), each with its reason."
    yield "## Teachers"
    named = [f"- {_code(name)}: {_md(tables.identity(who))}" for name, who in facts.teachers().items()]
    yield "\n".join(named) or "None."
    yield facts.card.get("data_card") or _unchecked(facts)
    yield "## Reproduce"
    yield _reproduce(facts)


def _kind(facts: RunFacts) -> str:
    return facts.recipe.student.kind if facts.recipe and facts.recipe.student else "causal_lm"


def says(facts: RunFacts) -> str:
    """What a student gives that is no text; "" for one that writes."""
    kind = _kind(facts)
    if kind not in SCORERS:
        return ""
    assert facts.recipe is not None and facts.recipe.student is not None
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
    if not _HUB_ID.fullmatch(model):
        return {}
    return {"base_model": model, "base_model_relation": "finetune"}


def _start(facts: RunFacts) -> str:
    known = _base(facts).get("base_model")
    if known:
        return _code(known)
    model = facts.recipe.student.model if facts.recipe and facts.recipe.student else ""
    return f"{_code(Path(model).name)} (a local folder)" if model else "weights that are not recorded"


def _hub_seeds(facts: RunFacts) -> list[str]:
    if facts.recipe is None:
        return []
    named = [
        branch.seeds.knobs.get("dataset") for branch in facts.recipe.knowledge.values() if branch.seeds.do == "hub"
    ]
    return sorted({str(each) for each in named if _HUB_ID.fullmatch(str(each))})


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
            dataset_type=_slug(str(task["task"])),
            dataset_name=_slug(Path(str(task.get("knobs", {}).get("path") or task["task"])).name),
            metric_type=_slug(str(task.get("metric") or "score")),
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
                who = _code(row["arm"]) + {"base": " (untaught)", "control": " (control)"}.get(
                    role_of(facts, row["arm"]), ""
                )
                ends = f"{scale.bare(row['low'])} to {scale.bare(row['high'])}"
                mean = _md(scale.value(row["mean"]))
                rows.append((_md(row["task"]), who, mean, ends, str(row["seeds"]), str(row["items"])))
    return rows


def _trained(facts: RunFacts) -> str:
    final = (facts.final or {}).get("arm")
    arm = facts.arms.get(final or "")
    seen = next((each for each in tables.tokens_seen(facts) if each.arm == final), None)
    lines = [f"- Objectives: {', '.join(_code(each) for each in arm.objectives)}"] if arm else []
    if seen:
        lines.append(
            f"- {seen.steps:,.0f} steps, {seen.input_tokens:,.0f} input tokens, {seen.target_tokens:,.0f} target tokens per seed"
        )
        lines += [
            f"- Compared with {_code(name)}, which has another tokenizer, at {share:.1%} of the target tokens"
            for name, share in seen.coverage.items()
        ]
    for name, who in facts.teachers().items():
        if arm is None or name in arm.teachers:
            lines.append(f"- Teacher {_code(name)}: {_md(tables.identity(who))}")
    read = [b for b in branches_of(facts.manifest) if arm is None or _read_by(b, arm)]
    lines += [f"- Data {_code(b.name)}: {b.kept:,} rows kept of {b.seeds:,} seeds" for b in read]
    return "\n".join(lines)


def _read_by(branch: Branch, arm: Arm) -> bool:
    """An arm that words a branch differently has its own `<branch>@<arm>`; one whose student wrote it `<branch>@<arm>.<seed>`."""
    name, _, owner = branch.steps[0]["branch"].partition("/")[0].partition("@")
    return name in arm.reads and (owner in ("", arm.name) or owner.rpartition(".")[0] == arm.name)


def _unchecked(facts: RunFacts) -> str:
    said = "The terms of the teachers, the data and the starting weights were not checked for this run."
    if facts.terms.get("verdict"):
        said = f"Terms check of this run: {_md(str(facts.terms['verdict']))}."
    return f"## Terms\n\n{said} No licence is stated here unless the front matter names one."


def _reproduce(facts: RunFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in (facts.manifest.get("versions") or {}).items())
    commit = facts.manifest.get("commit") or "an installed package"
    return (
        f"Recipe hash {_code(facts.manifest.get('recipe_hash', 'unknown'))}, seed {facts.manifest.get('seed')}, "
        f"commit {_code(commit)}; {_md(versions)}. The recipe is `recipe.yaml` of the run folder."
    )


def _source(branch: Branch) -> str:
    step = branch.steps[0]
    knobs = step.get("knobs") or {}
    named = knobs.get("dataset") or (Path(str(knobs["path"])).name if "path" in knobs else "")
    return f"{step['do']} {named}".strip()


def _teachers(branch: Branch) -> list[str]:
    return list(dict.fromkeys(each["name"] for step in branch.steps for each in step.get("teachers") or []))


def _chain(branch: Branch) -> str:
    return ", ".join(str(step["do"]) for step in branch.steps[1:]) or "none"


def _files(branch: Branch) -> str:
    step = branch.steps[-1]
    return f"{step['branch']}/{step['step']}/out.jsonl"


def _slug(words: str) -> str:
    return re.sub(r"[^\w.-]+", "-", words).strip("-") or "unnamed"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(words: str) -> str:
    """Text that came from elsewhere, so that Markdown and HTML leave it as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(words.split()))


def _code(words: Any) -> str:
    inner = " ".join(str(words).split()).replace("`", "'").replace("|", "/")
    return f"`{inner}`"
