"""A new licence touches one row: of a licence, of weights, of a service. Nothing else is edited."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.plan import parse_plan
from stillhouse.compliance.recipe_plan import plan_of
from stillhouse.compliance.registry import from_text

TOOLS = Path(__file__).parents[2] / "tools/terms"
PLAIN = """
spdx: EUPL-1.2
open: true
source: https://eupl.eu/1.2/en
locator: "5"
quote: The Licensee shall keep intact all copyright, patent or trademarks notices
weights: [{code: LICENCE_COPY, trigger: weights_shipped, text: give a copy of the EUPL 1.2}]
"""
WEIGHTS = """
id: acme.licence@2026-12-01
kind: weights
holder: Acme
title: Acme Model Licence
access: [weights]
models: [{match: acme/gnome-*}]
bounds: the Gnome models
read: '2026-12-01'
grade: P
outputs_may_train: 'yes'
evaluation: 'yes'
source: https://acme.example/licence
locator: "4"
quote: Models trained on Output shall bear a name that begins with Gnome.
obligations:
- {code: "NAME_PREFIX:Gnome", trigger: shipped, reach: both, text: begin the student's name with Gnome}
"""


@pytest.fixture
def with_row(monkeypatch):
    """The registry as the tool builds it when one row is added to additions.yaml."""
    spec = importlib.util.spec_from_file_location("terms_build", TOOLS / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    read = build._read

    def registry(section, row):
        def added(path):
            data = read(path)
            return {**data, section: [*data[section], yaml.safe_load(row)]} if path.name == "additions.yaml" else data

        monkeypatch.setattr(build, "_read", added)
        before = (TOOLS.parents[1] / "src/stillhouse/compliance/terms.yaml").read_text(encoding="utf-8").splitlines()
        text = build.build()
        assert len(set(text.splitlines()) - set(before)) == 1
        return from_text(text, "additions")

    return registry


def test_a_plain_licence(with_row):
    registry = with_row("licences", PLAIN)
    teacher = {"name": "m", "backend": "transformers", "model": "models/x", "terms": {"record": "eupl-1.2"}}
    plan = plan_of(
        use={"purpose": "open_release", "as_of": "2026-12-02"},
        teachers=[teacher],
        seeds=[],
        student={"model": "models/y", "terms": {"record": "EUPL-1.2"}},
        registry=registry,
    )
    assert evaluate(plan, registry).codes == ("LICENCE_COPY",)


def test_weights_with_a_licence_of_their_own(with_row):
    registry = with_row("records", WEIGHTS)
    plan = {
        "teachers": [{"model": "acme/gnome-7b", "access": "weights"}],
        "datasets": [],
        "student_base": "none",
        "use": {"purpose": "open_release", "student_name": "Small", "as_of": "2026-12-02"},
    }
    decision = evaluate(parse_plan(plan), registry)
    assert decision.codes == ("NAME_CONFLICT", "NAME_PREFIX:Gnome")
    assert decision.verdict == "permit-with-obligations"
    assert evaluate(parse_plan(plan), from_text(*plain())).codes == ("NO_RECORD",)


def plain():
    path = TOOLS.parents[1] / "src/stillhouse/compliance/terms.yaml"
    return path.read_text(encoding="utf-8"), str(path)


def test_a_service_is_an_address_and_a_record(with_row):
    registry = with_row("endpoints", "{access: 'api:mistral', hosts: [llm.acme.example], vendor: mistral}")
    hosted = {"name": "m", "backend": "openai", "model": "small", "base_url": "https://llm.acme.example/v1"}
    plan = plan_of(
        use={"purpose": "research"}, teachers=[hosted], seeds=[], student={"model": "pocket"}, registry=registry
    )
    assert plan.teachers[0].access == "api:mistral"
