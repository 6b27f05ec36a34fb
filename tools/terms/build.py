"""Builds src/stillhouse/compliance/terms.yaml from facts.yaml and additions.yaml: same input, same bytes.

python tools/terms/build.py            writes the registry
python tools/terms/build.py --check    exit 1 when the registry on disk is not what these two files give
"""

import json
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

HERE = Path(__file__).parent
REGISTRY = HERE.parents[1] / "src/stillhouse/compliance/terms.yaml"
HEADER = "# Made by tools/terms/build.py from facts.yaml and additions.yaml: edit those. One record a line.\n"
# facts.yaml says this in a sentence; the registry says it in a word that a rule can read
STRENGTHS = {
    "required for works containing the weights; precautionary for output-trained students": "required_for_weights"
}
EMPTY: tuple[Any, ...] = (None, "", [], "-")


def build() -> str:
    facts = _read(HERE / "facts.yaml")
    more = _read(HERE / "additions.yaml")
    records = sorted((_row(row, more) for row in [*facts["records"], *more["records"]]), key=lambda row: row["id"])
    head = {"schema": facts["schema"], "version": more["version"], "compiled": str(facts["compiled"])}
    parts = [HEADER, yaml.safe_dump(head, sort_keys=False)]
    for name, rows in (("endpoints", more["endpoints"]), ("licences", more["licences"]), ("records", records)):
        parts.append(f"{name}:\n")
        parts += [f"- {json.dumps(row, ensure_ascii=False)}\n" for row in rows]
    return "".join(parts)


def _row(row: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in row.items() if value not in EMPTY}
    for obligation in out.get("obligations", []):
        if "strength" in obligation:
            obligation["strength"] = STRENGTHS[obligation["strength"]]
    if "read" in out and "review_by" not in out:
        out["review_by"] = review_by(out["kind"], date.fromisoformat(out["read"])).isoformat()
    if digest := _digest(out.get("source", ""), more["hashes"]):
        out["source_sha256"] = digest
    if out["id"] in more["aggregators"]:
        out["aggregator"] = True
    return out


def review_by(kind: str, read: date) -> date:
    """90 days after reading for what changes without notice, 730 days for files that are pinned by a revision."""
    return read + timedelta(days=90 if kind in ("contract", "host") else 730)


def _digest(source: str, hashes: list[list[str]]) -> str | None:
    address = unquote(source)
    found = [digest for commit, path, digest in hashes if f"/{commit}" in address and path in address]
    return found[0] if found else None


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv:
        sys.exit(REGISTRY.read_text(encoding="utf-8") != text)
    REGISTRY.write_text(text, encoding="utf-8")
