"""Generation spread over a Ray cluster with Ray Data; everything above it (keys, store, budget, order) stays as it is.

Only what lies below the call layer moves: the driver looks up what is stored, cuts the rest into the very chunks that a
local teacher would batch, and writes each chunk down as it comes back, in order. So a run on Ray and one without it give
the same answers under the same keys, and may resume each other. A worker that dies has its chunk done again by another one; a
request that raises becomes a failure of its own, and its neighbours are answered.
"""

import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

from stillhouse.errors import StillhouseError, TeacherError
from stillhouse.teachers.base import Answer, Failure, Outcome, Request

__all__ = ["on_ray"]

# one execution of Ray Data: its workers load the model once for so many requests
_WINDOW = 32_768
_OF_ONE_ROW = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def on_ray(kind: type, knobs: Mapping[str, Any]) -> Any:
    """A teacher of the class `kind` whose answers come from workers; what is asked of the model itself stays here.

    The cluster is the one that RAY_ADDRESS names, else one is started on this machine. Each worker has as many GPUs as
    the engine's `tensor_parallel_size` where the cluster has any, else one CPU. Raises TeacherError without Ray.
    """
    spread = type("Teacher", (_Spread, kind), {"__doc__": kind.__doc__, "made_of": (kind, dict(knobs))})
    return spread(**knobs)


class _Spread:
    """In front of a backend: the same teacher, its `ask` done elsewhere. `chunk` is what one worker does at a time."""

    window = _WINDOW
    chunk: int
    made_of: tuple[type, dict[str, Any]]

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        kind, knobs = self.made_of
        source = iter(requests)
        while blocks := _blocks(source, self.chunk):
            gpus = int(dict(knobs.get("engine") or {}).get("tensor_parallel_size", 1))
            results = _spread(blocks, kind.__module__, knobs, gpus)
            for block, answered in zip(blocks, results):
                yield from (Outcome(request, result) for request, result in zip(block, answered, strict=True))


class _Worker:
    """One process of the cluster with a teacher of its own."""

    def __init__(self, module: str, knobs: Mapping[str, Any]) -> None:
        self._teacher = import_module(module).Teacher(**knobs)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        given = [pickle.loads(block) for block in batch["requests"]]
        return {"results": [pickle.dumps(answered(self._teacher, block)) for block in given]}


def answered(teacher: Any, requests: Sequence[Request]) -> list[Answer | Failure]:
    """How each request ended, in order. Where the whole raises, they are asked one by one, and who raises fails alone.

    Raises StillhouseError where the teacher itself cannot work (no model, no memory of its own doing).
    """
    try:
        return _asked(teacher, requests)
    except StillhouseError:
        raise
    except _OF_ONE_ROW as error:  # what a model or a library threw at one row must not take the others with it
        if len(requests) > 1:
            return [result for request in requests for result in answered(teacher, [request])]
        return [Failure("worker_failed", f"{type(error).__name__}: {error}"[:300], "not_attempted")]


def _asked(teacher: Any, requests: Sequence[Request]) -> list[Answer | Failure]:
    found = {id(outcome.request): outcome.result for outcome in teacher.ask(requests)}
    missing = Failure("no_answer", "the teacher gave nothing back for this request")
    return [found.get(id(request), missing) for request in requests]


def _blocks(source: Iterator[Request], size: int) -> list[list[Request]]:
    window = list(islice(source, _WINDOW - _WINDOW % size or size))
    return [window[start : start + size] for start in range(0, len(window), size)]


def _spread(
    blocks: Sequence[Sequence[Request]], module: str, knobs: Mapping[str, Any], gpus: int
) -> Iterator[list[Answer | Failure]]:
    """The results of each block, in order, as they come."""
    ray = _started()
    have = ray.cluster_resources()
    need = {"num_gpus": gpus} if have.get("GPU", 0) >= gpus else {"num_cpus": 1}
    most = have["GPU"] // gpus if "num_gpus" in need else have.get("CPU", 1)
    pool = ray.data.ActorPoolStrategy(size=max(1, min(int(most), len(blocks))))
    items = [{"requests": pickle.dumps(list(block))} for block in blocks]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Worker, fn_constructor_args=(module, dict(knobs)), batch_size=1, compute=pool, **need
    )
    try:
        for row in dataset.iter_rows():
            yield pickle.loads(row["results"])
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        first = str(cause).strip().split("\n")[-1]
        raise TeacherError(
            f"a worker on Ray stopped the run ({first[:300]}); what came back before is kept: run again when it is mended"
        ) from error


def _started() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TeacherError("--on ray needs Ray: pip install 'stillhouse[ray]', on the workers too") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
