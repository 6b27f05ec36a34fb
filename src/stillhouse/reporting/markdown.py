"""What both cards are made of: Markdown that holds what came from elsewhere, and the paragraphs that both carry."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stillhouse.files import replacing
from stillhouse.reporting.reading import RunFacts

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def write(path: Path, text: str) -> Path:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")
    return path


def card(facts: RunFacts, front: str, title: str, sections: Iterable[str]) -> str:
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


def hub_seeds(facts: RunFacts) -> list[str]:
    if facts.recipe is None:
        return []
    named = [
        branch.seeds.knobs.get("dataset") for branch in facts.recipe.knowledge.values() if branch.seeds.do == "hub"
    ]
    return sorted({str(each) for each in named if HUB_ID.fullmatch(str(each))})


def unchecked(facts: RunFacts) -> str:
    said = "The terms of the teachers, the data and the starting weights were not checked for this run."
    if facts.terms.get("verdict"):
        said = f"Terms check of this run: {md(str(facts.terms['verdict']))}."
    return f"## Terms\n\n{said} No licence is stated here unless the front matter names one."


def reproduce(facts: RunFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in (facts.manifest.get("versions") or {}).items())
    commit = facts.manifest.get("commit") or "an installed package"
    return (
        f"Recipe hash {code(facts.manifest.get('recipe_hash', 'unknown'))}, seed {facts.manifest.get('seed')}, "
        f"commit {code(commit)}; {md(versions)}. The recipe is `recipe.yaml` of the run folder."
    )


def slug(words: str) -> str:
    return re.sub(r"[^\w.-]+", "-", words).strip("-") or "unnamed"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def md(words: str) -> str:
    """Text that came from elsewhere, so that Markdown and HTML leave it as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(words.split()))


def code(words: Any) -> str:
    inner = " ".join(str(words).split()).replace("`", "'").replace("|", "/")
    return f"`{inner}`"
