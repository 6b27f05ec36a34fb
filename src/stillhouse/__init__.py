"""Stillhouse distils large language models into small ones: seeds and a teacher in; a trained, measured student out."""

from typing import TYPE_CHECKING, Any

from stillhouse.records import Example, Lost, Message, Origin, Ranking, Seed, TopLogprobs

if TYPE_CHECKING:
    from stillhouse.run import Run, distill, load_run

__all__ = ["Example", "Lost", "Message", "Origin", "Ranking", "Run", "Seed", "TopLogprobs", "distill", "load_run"]


def __getattr__(name: str) -> Any:
    # running needs torch and transformers, looking at records does not: imported when first used
    if name in ("Run", "distill", "load_run"):
        from stillhouse import run

        return getattr(run, name)
    raise AttributeError(f"module 'stillhouse' has no attribute {name!r}")
