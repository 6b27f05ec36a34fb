"""The papers of a run: what the terms want on its cards, the notices, the bill of materials, the training summary."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stillhouse.compliance.bom import ml_bom
from stillhouse.compliance.cards import data_card_section, model_card_fields, model_card_section
from stillhouse.compliance.lineage import ends_by_teachers, rows_by_teachers
from stillhouse.compliance.notices import notice_files
from stillhouse.compliance.plan import Plan
from stillhouse.compliance.training_summary import synthetic_data_section
from stillhouse.store import read_json
from stillhouse.terms import Terms

__all__ = ["BOM", "SUMMARY", "on_the_cards", "papers", "sha256"]

BOM, SUMMARY = "bom.cdx.json", "TRAINING_SUMMARY.md"


def on_the_cards(terms: Terms, run: Path, screening: Mapping[str, Any]) -> dict[str, Any]:
    """The cards' sections and front matter, and the notices that go with the student, by file name."""
    decision = terms.before_handing_out(screening)
    rows, human = _rows(terms.plan, run)
    return {
        "fields": model_card_fields(decision, terms.plan, rows=rows),
        "model_card": model_card_section(decision, terms.plan, terms.registry, rows=rows),
        "data_card": data_card_section(decision, terms.plan, terms.registry, rows=rows, human_rows=human),
        "files": notice_files(decision, terms.registry),
    }


def papers(terms: Terms, run: Path, screening: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of what is made from the finished manifest: a CycloneDX ML-BOM, a draft of the summary."""
    manifest = read_json(run / "manifest.json")
    document = ml_bom(
        terms.before_handing_out(screening),
        terms.plan,
        name=terms.plan.use.student_name or manifest["name"],
        version=manifest["recipe_hash"],
        shards=list(_shards(terms.plan, run)),
        manifest_sha256=sha256(run / "manifest.json"),
    )
    summary = synthetic_data_section(terms.plan, rows=_rows(terms.plan, run)[0])
    return {BOM: json.dumps(document, indent=1, ensure_ascii=False) + "\n", SUMMARY: summary}


def _rows(plan: Plan, run: Path) -> tuple[dict[str, int], int]:
    """Rows at the end of all branches and rounds by the model behind them, and those with no teacher behind them."""
    rows: dict[str, int] = {}
    human = 0
    for counts in rows_by_teachers(run).values():
        for names, count in counts.items():
            human += 0 if names else count
            for model in _models(plan, names):
                rows[model] = rows.get(model, 0) + count
    return rows, human


def _shards(plan: Plan, run: Path) -> Iterator[dict[str, Any]]:
    for branch, ends in ends_by_teachers(run).items():
        for file, counts in ends.items():
            yield {
                "name": branch if len(ends) == 1 else f"{branch}/{file.parent.parent.name}",
                "sha256": sha256(file),
                "rows": sum(counts.values()),
                "teachers": sorted({model for names in counts for model in _models(plan, names)}),
            }


def _models(plan: Plan, names: frozenset[str]) -> list[str]:
    return sorted({teacher.model for name in names for teacher in plan.by_name.get(name, ())})


def sha256(path: Path) -> str:
    """The content of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
