"""The answer of another prompt under each prompt: what KTO's reference point is measured on."""

from dataclasses import replace

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.train.batch import Item

MISMATCHED = " mismatched"  # the group beside the branch of that name


def with_mismatched(group: dict[str, list[Item]], name: str) -> dict[str, list[Item]]:
    """The micro-batch with one more group. Raises RecipeError where it has only one prompt."""
    items = group[name]
    counted = [item for item in items if item.weight]
    if counted and len({item.index for item in counted}) < 2:
        raise RecipeError(
            "train: ranking.kto measures its reference point on the answers of other prompts and a batch here has one "
            "prompt; set per_device_train_batch_size to 8 or more"
        )
    made = []
    for at, item in enumerate(items):
        others = (items[(at + step) % len(items)] for step in range(1, len(items) + 1))
        other = next((each for each in others if each.index != item.index), item)
        ids = np.concatenate([item.ids[: item.start], other.ids[other.start :]])
        made.append(replace(item, ids=ids, own=True))
    return {**group, name + MISMATCHED: made}
