"""The demo's seeds: easy word problems as prompt and reference, and a disjoint held-out set."""

import json
from pathlib import Path

from tools.pocket.item import Draw, Item
from tools.pocket.skills import word_problems

SEEDS, HELD_OUT = 400, 250


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, held_out, count in (("seeds", 11, False, SEEDS), ("held_out", 12, True, HELD_OUT)):
        lines = [json.dumps(row(item)) for item in problems(seed, count, held_out=held_out)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def problems(seed: int, count: int, *, held_out: bool) -> list[Item]:
    """Different problems. Held out are combinations of numbers; the wordings are the same, for the demo is about sums."""
    draw = Draw(seed, held_out=held_out, held_out_wordings=False)
    found: dict[str, Item] = {}
    while len(found) < count:
        item = word_problems.make_easy(draw)
        found.setdefault(item.facts["question"], item)
    return list(found.values())


def row(item: Item) -> dict[str, str]:
    return {"prompt": item.facts["question"], "reference": str(item.facts["final"])}
