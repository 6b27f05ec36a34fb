"""What an endpoint costs: the recipe's own price, nothing for a server of one's own, else the table of genai-prices."""

from collections.abc import Mapping

from stillhouse.errors import RecipeError
from stillhouse.teachers.asking.http import is_own
from stillhouse.teachers.asking.wire import Price

__all__ = ["price_of"]


def price_of(model: str, url: str, given: Mapping[str, float] | None) -> Price | None:
    """None where nobody knows. `given` is `{in, out, cached}` in dollars per million tokens; raises RecipeError for
    others.
    """
    if given is not None:
        return _given(given)
    return Price(id="own server") if is_own(url) else _listed(model, url)


def _given(price: Mapping[str, float]) -> Price:
    if not {"in", "out"} <= set(price) <= {"in", "out", "cached"} or any(value < 0 for value in price.values()):
        raise RecipeError(f"price is {{in: ..., out: ...}} in dollars per million tokens, not {dict(price)}")
    return Price(price["in"], price["out"], price.get("cached"), "recipe")


def _listed(model: str, url: str) -> Price | None:
    """The dearest of the table's prices (it knows steps by length and by hour) for a million tokens of each kind."""
    from genai_prices import Usage, calc_price

    def dollars(**tokens: int) -> float:
        return float(calc_price(Usage(**tokens), model_ref=model, provider_api_url=url).total_price)

    try:
        each = 1000
        entry = dollars(input_tokens=each, output_tokens=0) * 1e6 / each
        out = dollars(input_tokens=0, output_tokens=each) * 1e6 / each
        cached = dollars(input_tokens=each, cache_read_tokens=each, output_tokens=0) * 1e6 / each
    except LookupError:
        return None
    from importlib.metadata import version

    return Price(entry, out, cached, f"genai-prices {version('genai-prices')}")
