"""Every shipped recipe passes `check`, and its knowledge is made to the end by a teacher that follows a script."""

import re
from pathlib import Path

import pytest
from scripted_recipes import kept

from stillhouse.check import check
from stillhouse.copying import copy_recipe
from stillhouse.recipe import load_recipe, shipped_recipes

# a recipe that reads a file of the user's (answers already recorded, say) cannot be run by a script
NAMES = sorted(
    name
    for name, path in shipped_recipes().items()
    if name.startswith(("skills/", "verticals/")) and "backend: recorded" not in path.read_text()
)

WHOLE = ("skills/nlp/weak_groups",)  # two rows have no groups


def test_there_are_recipes_for_every_skill_and_vertical() -> None:
    """C07, C08: SK01-SK15 lie in five folders, V1-V5 in five."""
    assert len(NAMES) >= 65
    folders = {name.rpartition("/")[0] for name in NAMES}
    assert folders == {
        *(f"skills/{each}" for each in ("agent", "alignment", "context_following", "multimodal", "nlp")),
        *(f"verticals/{each}" for each in ("finance", "law", "medical", "misc", "science")),
    }


@pytest.mark.parametrize("name", NAMES)
def test_check_passes(name: str) -> None:
    """C07, C10: terms included; the first line names the row of the survey."""
    plan = check(load_recipe(name))
    assert plan.branches
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    assert re.match(r"# (?:R\d\d|SK\d\d|O\d)", text), "the first line names the survey's row"


@pytest.mark.parametrize("name", NAMES)
def test_its_knowledge_is_made_to_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: each recipe runs offline; every branch keeps some rows, and every step says what it lost."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    for branch, records in kept(name, tmp_path, None if name in WHOLE else 2).items():
        assert records, f"branch {branch} keeps nothing"


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_stands_alone(name: str, tmp_path: Path) -> None:
    """`still new`: the recipe and every file it names, and the copy passes `check` where it lies."""
    first, *files = copy_recipe(name, tmp_path / "mine.yaml")
    assert first == tmp_path / "mine.yaml"
    assert files
    assert check(load_recipe(first)).branches
