"""The data card of a run, `knowledge/README.md`: front matter that hubs read, plain Markdown below.

What the terms want on it stands in the manifest under `terms: {card: {data_card}}`: a section.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.reporting import tables
from stillhouse.reporting.markdown import card, code, hub_seeds, md, reproduce, slug, table, unchecked, write
from stillhouse.reporting.reading import Branch, RunFacts, branches_of

_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")


def write_data_card(facts: RunFacts) -> Path | None:
    """Writes the card into `knowledge/`; None where no step has finished."""
    home = facts.path / "knowledge"
    made = home.is_dir() and bool(branches_of(facts.manifest))
    return write(home / "README.md", data_card(facts)) if made else None


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
        **({"source_datasets": found} if (found := hub_seeds(facts)) else {}),
        "configs": [{"config_name": slug(b.name), "data_files": _files(b)} for b in branches],
    }
    return card(
        facts,
        DatasetCardData(**fields).to_yaml(),
        f"# Data of {md(str(facts.manifest['name']))}",
        _data_body(facts, branches),
    )


def _data_body(facts: RunFacts, branches: list[Branch]) -> Iterator[str]:
    rows, synthetic = tables.kept_rows(branches), sum(branch.kept for branch in branches if branch.synthetic)
    share = f" ({synthetic / rows:.1%})" if rows else ""
    yield f"{synthetic:,} of {rows:,} rows{share} were written or scored by a model; the others are seeds as they were given."
    yield "## Branches"
    yield table(
        ("Branch", "Seeds from", "Seeds", "Rows kept", "Teachers", "Steps"),
        [
            (
                code(b.name),
                md(_source(b)),
                f"{b.seeds:,}",
                f"{b.kept:,}",
                md(", ".join(_teachers(b)) or "none"),
                md(_chain(b)),
            )
            for b in branches
        ],
    )
    yield "## Selection"
    lost = [
        (code(b.name), md(step["step"]), f"{n:,}", md(reason))
        for b in branches
        for step in b.steps
        for reason, n in step["lost"].items()
    ]
    yield "No row was lost." if not lost else table(("Branch", "Step", "Rows lost", "Reason"), lost)
    yield "Lost rows lie beside the kept ones (`lost.jsonl`), each with its reason."
    yield "## Teachers"
    named = [f"- {code(name)}: {md(tables.identity(who))}" for name, who in facts.teachers().items()]
    yield "\n".join(named) or "None."
    yield facts.card.get("data_card") or unchecked(facts)
    yield "## Reproduce"
    yield reproduce(facts)


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
