"""A provider's list of batches, newest first, as far back as a batch can lie."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from stillhouse.teachers.asking.http import Server
from stillhouse.teachers.asking.wire import Fault

__all__ = ["AGE_S", "listed", "mapping"]

AGE_S = 3600.0  # by how much the provider's clock may differ from ours


def mapping(told: Any) -> dict[str, Any]:
    """A JSON object as it is; anything else is an empty one."""
    return told if isinstance(told, dict) else {}


async def listed(
    server: Server, path: str, *, after: str, created: Callable[[dict[str, Any]], float], since: float
) -> AsyncIterator[dict[str, Any] | Fault]:
    """The batches made since `since` and the rest of their pages. `after` is the name that asks for the next page; a fault
    ends it.
    """
    more = ""
    while True:
        page = await server.call("GET", f"{path}?limit=100{more}")
        if isinstance(page, Fault):
            yield page
            return
        told = page.get("data")
        rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
        for row in rows:
            yield row
        if not page.get("has_more") or not rows or min(map(created, rows)) < since - AGE_S:
            return
        more = f"&{after}={rows[-1].get('id')}"
