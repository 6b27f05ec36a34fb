"""Licence expressions: SPDX as `packaging` reads it, the tags of model hubs, and what each plain licence asks."""

import re
from collections.abc import Iterable

from stillhouse.errors import RecipeError

__all__ = ["alternatives", "is_noncommercial", "is_plain_public", "normal", "share_alike_family"]

# tags of model hubs that are no SPDX ids
HUB_TAGS = frozenset(
    """
    other unknown cc gpl lgpl agpl bsd openrail openrail++ bigscience-openrail-m bigcode-openrail-m
    creativeml-openrail-m bigscience-bloom-rail-1.0 deepfloyd-if-license llama2 llama3 llama3.1 llama3.2 llama3.3
    llama4 gemma grok2-community apple-amlr apple-ascl intel-research deepseek qwen qwen-research tongyi-qianwen
    tongyi-qianwen-research mnpl mrl nvidia-open-model-license h-research stabilityai-ai-community
    """.split()  # noqa: SIM905
)
# what is on a hub but names no licence that could be passed on as it stands
NOT_A_PUBLIC_LICENCE = frozenset(("other", "unknown"))


def normal(expression: str, where: str) -> str:
    """The expression in its canonical spelling (`apache-2.0` -> `Apache-2.0`); hub tags stay, in lower case.

    Raises RecipeError where it is neither an SPDX expression nor a tag.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if expression.strip().lower() in HUB_TAGS:
        return expression.strip().lower()
    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression as e:
        raise RecipeError(
            f"{where}: {expression!r} is not a licence expression; write an SPDX one (Apache-2.0, MIT AND CC-BY-4.0), "
            "a hub tag (llama3.1, gemma, other) or LicenseRef-<name>"
        ) from e


def alternatives(canonical: str) -> list[frozenset[str]]:
    """What a canonical expression offers: one set of licences per choice (`A AND (B OR C)` -> {A, B}, {A, C})."""
    tokens = re.findall(r"\(|\)|[^\s()]+", canonical)
    choices, rest = _either(tokens)
    assert not rest, f"{canonical} was canonical"
    return choices


def _either(tokens: list[str]) -> tuple[list[frozenset[str]], list[str]]:
    choices, rest = _all(tokens)
    while rest and rest[0] == "OR":
        more, rest = _all(rest[1:])
        choices = choices + more
    return choices, rest


def _all(tokens: list[str]) -> tuple[list[frozenset[str]], list[str]]:
    choices, rest = _one(tokens)
    while rest and rest[0] == "AND":
        more, rest = _one(rest[1:])
        choices = [left | right for left in choices for right in more]
    return choices, rest


def _one(tokens: list[str]) -> tuple[list[frozenset[str]], list[str]]:
    if tokens[0] == "(":
        choices, rest = _either(tokens[1:])
        return choices, rest[1:]
    name, rest = tokens[0], tokens[1:]
    if rest[:1] == ["WITH"]:
        name, rest = f"{name} WITH {rest[1]}", rest[2:]
    return [frozenset([name])], rest


def _names(expression: str) -> list[str]:
    return re.findall(r"[^\s()]+", expression)


def is_noncommercial(expression: str, known: Iterable[str] = ()) -> bool:
    """Whether a student licence keeps a non-commercial limit in every choice it leaves, or is one of `known`."""
    if expression.lower() in {name.lower() for name in known}:
        return True
    if expression.lower() in HUB_TAGS:
        return expression.lower() in (
            "mnpl",
            "mrl",
            "qwen-research",
            "tongyi-qianwen-research",
            "apple-amlr",
            "intel-research",
        )
    return all(any("-NC" in name.upper() for name in choice) for choice in alternatives(expression))


def is_plain_public(expression: str, passes_through: Iterable[str]) -> bool:
    """Whether a licence cannot carry restrictions: a public id, and not that of the record passing through."""
    low = expression.lower()
    if low in NOT_A_PUBLIC_LICENCE or low in {name.lower() for name in passes_through}:
        return False
    return not any(name.lower().startswith("licenseref-") for name in _names(expression))


def share_alike_family(expression: str) -> str | None:
    """Which ShareAlike family a data licence belongs to; versions of one family may follow each other."""
    up = expression.upper()
    for mark, family in (
        ("BY-NC-SA", "CC BY-NC-SA"),
        ("BY-SA", "CC BY-SA"),
        ("CDLA-SHARING", "CDLA-Sharing"),
        ("ODBL", "ODbL"),
    ):
        if mark in up:
            return family
    return None
