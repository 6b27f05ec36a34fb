"""Run folder -> report.html, the model card and the data card. Reads what the stages left; called when a run is done."""

from pathlib import Path

from stillhouse.reporting.data_card import write_data_card
from stillhouse.reporting.model_card import write_model_card
from stillhouse.reporting.pages import write_page
from stillhouse.reporting.reading import read_run

__all__ = ["write_report"]


def write_report(run: Path) -> Path:
    """Writes the report of a run folder, finished or not, and the cards of its student and its data.

    Returns where the report lies. Raises `RecipeError` when the folder holds no manifest.
    """
    facts = read_run(run)
    write_model_card(facts)
    write_data_card(facts)
    return write_page(facts)
