"""The report of a real, tiny run: what the stages leave is what the report reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from stillhouse.report import write_report
from stillhouse.reporting.data_card import write_data_card
from stillhouse.reporting.reading import branches_of, read_run
from stillhouse.reporting.verdict import headline, role_of


@pytest.fixture
def copied(trial: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trial.path, tmp_path / "run"))


def test_a_real_run_is_read_whole(copied: Path) -> None:
    facts = read_run(copied)
    assert {branch.name for branch in branches_of(facts.manifest)} == {"answers", "beliefs"}
    assert {arm: (each.taught, each.beliefs) for arm, each in facts.arms.items()} == {
        "text": (True, False), "beliefs": (True, True),
    }  # fmt: skip
    assert role_of(facts, "text") == "taught"
    said = headline(facts)
    assert said.answer != "Not measured"
    assert any("beliefs add to its text" in line for line in said.more)


def test_a_real_run_gets_report_and_cards(copied: Path) -> None:
    page = write_report(copied).read_text(encoding="utf-8")
    assert page.count('class="plot flow"') == 2
    assert page.count('class="plot losses"') == 2
    assert page.count('class="plot intervals"') == 2
    assert page.count("<article") > 0
    write_data_card(read_run(copied))
    model = ModelCard.load(copied / "student" / "README.md")
    assert model.data.eval_results is not None
    assert str(copied) not in str(model)
    data = DatasetCard.load(copied / "knowledge" / "README.md")
    assert [each["config_name"] for each in data.data.to_dict()["configs"]] == ["answers", "beliefs"]
    for each in data.data.to_dict()["configs"]:
        assert (copied / "knowledge" / each["data_files"]).is_file()
