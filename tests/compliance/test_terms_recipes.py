"""Ordinary work needs no paper: every shipped recipe with the pocket teacher is permitted, as it stands and for any purpose."""

from datetime import date

import pytest

from stillhouse.compliance.gates import decide
from stillhouse.recipe import load_recipe, shipped_recipes
from stillhouse.terms import terms_of

TODAY = date(2026, 11, 21)
PURPOSES = ["research", "internal", "commercial_product", "open_release"]


def with_pocket(name):
    """The recipe with the pocket teacher in the place of every other; nothing else is changed."""
    loaded = load_recipe(name)
    data = loaded.data
    for part in (data, *(arm for arm in (data.get("arms") or {}).values() if arm)):
        if "teachers" in part:
            part["teachers"] = {each: {"backend": "pocket"} for each in part["teachers"]}
    return load_recipe(data, folder=loaded.folder)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_with_the_pocket_teacher_is_permitted(name):
    terms = terms_of(with_pocket(name))
    for plan in (terms.plan, *terms.others):
        for purpose in PURPOSES:
            use = plan.use.model_copy(update={"purpose": purpose})
            decision = decide(plan.model_copy(update={"use": use}), registry=terms.registry, today=TODAY)
            assert decision.verdict == "permit", (purpose, decision.codes)


def test_the_demo_is_permitted_as_it_stands():
    terms = terms_of(load_recipe("demo"))
    assert decide(terms.plan, registry=terms.registry, today=TODAY).verdict == "permit"


def test_the_manifest_says_which_records_govern_the_teachers_that_rows_name() -> None:
    told = terms_of(load_recipe("demo")).before_spending()
    assert told["teachers"]["main"] == [
        {
            "model": "stillhouse/pocket-teacher",
            "access": "weights",
            "method": "train_on_outputs",
            "records": ["stillhouse.pocket"],
        }
    ]
