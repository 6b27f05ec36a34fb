"""A branch of records whose beliefs lie in a store of signals, joined with the store and checked."""

from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.records import StoredSignal
from stillhouse.signals.beliefs import StoredSignals
from stillhouse.train.batch import Branch


def joined(branch: Branch, tokenizer: Any) -> StoredSignals:
    """The signals of a branch's places, in their order. Raises RecipeError where store, data and student do not match."""
    where = f"train: branch {branch.name!r}"
    rows, stores = [], set()
    for place in range(len(branch)):
        record = branch.record(place)
        assert isinstance(record, StoredSignal)
        rows.append(record.row)
        stores.add(record.store)
    if len(stores) > 1:
        raise RecipeError(
            f"{where} has signals from {len(stores)} stores (several teachers or forms); "
            "give each a branch of its own and an objective on each"
        )
    items = [branch.items(place)[0] for place in range(len(branch))]
    responses: list[Any] = [item.ids[item.start :] for item in items]
    return StoredSignals(where, Path(stores.pop()), rows, responses, tokenizer)
