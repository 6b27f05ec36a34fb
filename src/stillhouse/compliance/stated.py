"""Records that a recipe or a model card states for one id: a record of the registry by name, or a plain licence."""

from datetime import date, timedelta
from difflib import get_close_matches
from typing import Literal

from stillhouse.compliance.licences import alternatives, normal
from stillhouse.compliance.registry import Licence, Registry
from stillhouse.compliance.terms import Condition, Obligation, Pattern, TermsRecord
from stillhouse.errors import RecipeError

__all__ = ["Kind", "from_card", "named"]

Kind = Literal["weights", "dataset"]


def named(registry: Registry, name: str, id: str, access: str, kind: Kind, where: str) -> list[TermsRecord]:
    """What `terms: {record: name}` adds for `id`: a record of the registry, or plain licences. Raises RecipeError."""
    record = registry.by_id.get(name)
    if record is None:
        return _licensed(registry, name, id, access, kind, where)
    wanted = ("dataset",) if kind == "dataset" else ("weights", "contract", "host")
    if record.kind not in wanted:
        raise RecipeError(f"{where}: {name} is about a {record.kind}; name a record about {' or '.join(wanted)}")
    pattern = (_exactly(id),)
    return [record.model_copy(update={"models": pattern, "access": (access,), "origin": "recipe"})]


def _licensed(registry: Registry, expression: str, id: str, access: str, kind: Kind, where: str) -> list[TermsRecord]:
    """Records for a plain licence expression: one for each licence, the first inheriting the others."""
    near = get_close_matches(expression, registry.by_id, n=2)
    if near and " " not in expression:  # a record's id with a slip in it is no licence expression either
        raise RecipeError(f"{where}: no record {expression!r}; did you mean {' or '.join(map(repr, near))}?")
    choice = _choice(registry, normal(expression, where))
    if choice is None:
        plain = ", ".join(row.spdx for row in registry.licences)
        raise RecipeError(
            f"{where}: {expression!r} is neither a record (see `still terms list`) nor a plain licence with a row; "
            f"those are {plain}; write the terms into terms.d/*.yaml"
        )
    first, *others = choice
    rest = [_record(row, id, "incorporated", kind, registry.compiled) for row in others]
    inherits = tuple(r.id for r in rest)
    main = _record(first, id, access, kind, registry.compiled)
    # two things under one licence are two rows; what they inherit is one
    return [main.model_copy(update={"inherits": inherits}), *rest]


def _choice(registry: Registry, canonical: str) -> list[Licence] | None:
    """Where an expression leaves a choice, the licensee takes the one that asks least."""
    if not canonical[:1].isalnum() and not canonical.startswith("("):
        return None
    found = []
    for names in alternatives(canonical):
        rows = [row for name in sorted(names) if (row := registry.licence(name))]
        if len(rows) == len(names):
            found.append(rows)
    return min(found, key=_burden, default=None)


def from_card(registry: Registry, stated: str, id: str, access: str, kind: Kind) -> list[TermsRecord]:
    """What the licence on a model card adds for `id`; nothing unless it is plain and open."""
    try:
        choice = _choice(registry, normal(stated, "model card"))
    except RecipeError:
        return []  # what a card says is not the user's mistake: without a record it stays NO_RECORD
    if not choice or not all(row.open for row in choice):
        return []
    out = [
        _record(row, id, access if i == 0 else "incorporated", kind, registry.compiled) for i, row in enumerate(choice)
    ]
    card = {
        "origin": "card",
        "source": f"{id}/README.md",
        "locator": "model card front matter",
        "quote": f"license: {stated}",
    }
    main = out[0].model_copy(update={**card, "id": f"card:{id}", "inherits": tuple(r.id for r in out[1:])})
    return [main, *out[1:]]


def _burden(rows: list[Licence]) -> tuple[int, int, list[str]]:
    duties = sum(len(row.weights) + len(row.dataset) for row in rows)
    return sum(len(row.conditions) for row in rows), duties, [row.spdx for row in rows]


def _exactly(id: str) -> Pattern:
    return Pattern.model_validate({"match": id})


def _record(row: Licence, id: str, access: str, kind: Kind, read: date) -> TermsRecord:
    reach: Literal["data", "weights"] = "data" if kind == "dataset" else "weights"
    duties = row.dataset if kind == "dataset" else row.weights
    return TermsRecord(
        id=f"licence.{row.spdx}.{kind}",
        kind=kind,
        holder="as stated",
        title=row.spdx,
        access=(access,),
        models=(_exactly(id),),
        bounds="as stated in the recipe",
        read=read,
        review_by=read + timedelta(days=730),
        grade="P~",
        outputs_may_train="conditional" if row.conditions else "yes",
        evaluation="yes",
        conditions=tuple(Condition.model_validate(c.model_dump()) for c in row.conditions),
        obligations=tuple(Obligation(code=d.code, trigger=d.trigger, reach=reach, text=d.text) for d in duties),
        source=row.source,
        locator=row.locator,
        quote=row.quote,
        spdx=row.spdx,
        own_licence=row.spdx if kind == "dataset" else None,
        origin="recipe",
    )
