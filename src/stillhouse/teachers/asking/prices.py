"""What an endpoint costs: the recipe's own price, nothing for a server of one's own, else the table of genai-prices."""

from collections.abc import Mapping
from math import inf
from typing import Literal

from stillhouse.errors import RecipeError
from stillhouse.teachers.asking.http import is_own
from stillhouse.teachers.asking.wire import Price

__all__ = ["hourly_price", "price_of"]


def price_of(
    model: str, url: str, given: Mapping[str, float] | None, processing: Literal["online", "batch"] = "online"
) -> Price | None:
    """None where nobody knows. `given` is `{in, out, cached, batch}` in dollars per million tokens, `batch` being the
    share of them that a batch costs (1 where left out); raises RecipeError for others.
    """
    if given is not None:
        return _given(given, processing)
    return Price(id="own server") if is_own(url) else _listed(model, url, processing)


def _given(price: Mapping[str, float], processing: str) -> Price:
    if not {"in", "out"} <= set(price) <= {"in", "out", "cached", "batch"} or not _amounts(price):
        raise RecipeError(f"price is {{in: ..., out: ...}} in dollars per million tokens, not {dict(price)}")
    share = price.get("batch", 1.0) if processing == "batch" else 1.0
    cached = price.get("cached")
    told = "recipe" if processing == "online" else f"recipe, batch at {share:g}"
    return Price(price["in"] * share, price["out"] * share, None if cached is None else cached * share, told)


def hourly_price(given: Mapping[str, float] | None) -> float | None:
    """Dollars for an hour in which a local teacher works, of `{per_hour}`; None where it has no price.

    Raises RecipeError for anything else.
    """
    if given is None:
        return None
    if set(given) != {"per_hour"} or not _amounts(given):
        raise RecipeError(f"price of a local teacher is {{per_hour: ...}} in dollars, not {dict(given)}")
    return float(given["per_hour"])


def _amounts(price: Mapping[str, float]) -> bool:
    """Whether all are numbers that can be paid: none below 0, none that is not finite."""
    kinds = all(isinstance(value, int | float) and not isinstance(value, bool) for value in price.values())
    return kinds and all(0 <= value < inf for value in price.values())


def _listed(model: str, url: str, processing: str) -> Price | None:
    """The dearest of the table's prices (it knows steps by length and by hour) for a million tokens of each kind.

    A model for which the table has no batch price costs the full one there.
    """
    from genai_prices import Usage, calc_price

    context = {"processing": "batch"} if processing == "batch" else None

    def dollars(**tokens: int) -> float:
        usage = Usage(**tokens)
        return float(calc_price(usage, model_ref=model, provider_api_url=url, price_context=context).total_price)

    try:
        each = 1000
        entry = dollars(input_tokens=each, output_tokens=0) * 1e6 / each
        out = dollars(input_tokens=0, output_tokens=each) * 1e6 / each
        cached = dollars(input_tokens=each, cache_read_tokens=each, output_tokens=0) * 1e6 / each
    except LookupError:
        return None
    from importlib.metadata import version

    told = f"genai-prices {version('genai-prices')}"
    return Price(entry, out, cached, told if processing == "online" else f"{told}, batch")
