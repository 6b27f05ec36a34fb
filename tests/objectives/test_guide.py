"""What the guide says in code runs, and it leaves out no family."""

import re
from pathlib import Path

import stillhouse.objectives

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "objectives.md"


def test_the_examples_run():
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    scope: dict = {}
    for example in examples:
        exec(example, scope)
    assert len(scope["found"]) > 10
    assert scope["hidden"].grad.abs().sum() > 0


def test_every_name_it_uses_exists():
    folder = Path(stillhouse.objectives.__file__).parent
    families = {path.stem: path.read_text() for path in folder.glob("[a-z]*.py")}
    named = re.findall(r"`([a-z_]+)\.([a-z_0-9]+)`", GUIDE.read_text())
    checked = [(family, name) for family, name in named if family in families]
    assert len(checked) > 15
    for family, name in checked:
        assert f'"{name}"' in families[family], f"{family}.{name}"
