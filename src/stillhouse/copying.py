"""`still new`: a shipped recipe and the files beside it that it names, copied to start from."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.plain import read_yaml
from stillhouse.recipe import find_recipe


def copy_recipe(name: str, target: Path | None) -> list[Path]:
    """Copies a recipe and its data files; refuses to write over anything. Returns what was written, the recipe first.

    A data file that lies there already as it is stays: recipes of a chain share theirs.
    """
    source = find_recipe(name)
    target = target or Path(f"{Path(name).name}.yaml")
    target = target / f"{Path(name).name}.yaml" if target.is_dir() else target
    files = {target: source}
    for named in sorted(set(_paths(read_yaml(source)))):
        if not Path(named).is_absolute() and (source.parent / named).is_file():
            files[target.parent / named] = source.parent / named
    if target.exists():
        raise RecipeError(f"{target}: there already; name another file: still new {name} FILE")
    for path, origin in list(files.items()):
        if path.is_file() and path.read_bytes() == origin.read_bytes():
            del files[path]
        elif path.exists():
            raise RecipeError(
                f"{path}: there already, and not the file that {name} names; name one in another folder: "
                f"still new {name} FOLDER/FILE"
            )
    for path, origin in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, path)
    return list(files)


def _paths(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _paths(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _paths(each, key)
    elif isinstance(value, str) and (key == "path" or key.endswith("_path")):
        yield value
