"""What a run will cost, before it: the recipe's own elicitors are tried on some seeds with teachers that are only looked up.

What is stored already costs nothing. How long the missing answers will be is taken from stored ones of the same teacher
(twenty or more, so a run with `--limit 20` is a pilot), else assumed and said to be.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stillhouse.compliance.watch import Watch
from stillhouse.errors import StillhouseError, TermsRefused
from stillhouse.passing import routed
from stillhouse.progress import Progress
from stillhouse.ranges import Range, deviation, mean, spaced, span, three
from stillhouse.recipe import Branch, ElicitEntry, Loaded, Recipe
from stillhouse.records import Lost, Record
from stillhouse.resolve import PACKAGE, import_file, signature
from stillhouse.steps import Knowledge, Teachers
from stillhouse.teachers.asking.answers import default_store
from stillhouse.teachers.asking.pilot import Tally
from stillhouse.teachers.asking.wire import Price
from stillhouse.teachers.base import Sampling

__all__ = ["Estimate", "Line", "estimate"]

ROWS = 512  # seeds that are tried
_ENOUGH = 20  # stored answers that tell how long others will be
_FRAME = 1000  # bytes that an elicitor puts around a prompt, at most about
_BYTES = 4.0  # of a token, where nobody counted: English in today's vocabularies
_TRIPPED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, StillhouseError, TypeError, ValueError,
)  # fmt: skip
_NORMAL = 1.96


@dataclass(frozen=True, slots=True)
class Line:
    """One stage and teacher. `worst_usd` has every prompt a token a byte and every answer as long as it may be."""

    stage: str
    teacher: str
    requests: float  # of the whole stage
    stored: float  # of these, asked and answered already
    missing: Range
    input_tokens: Range
    output_tokens: Range
    usd: Range
    worst_usd: float
    how: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A line to each stage and teacher; `notes` say what is not in them."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # branches of which nobody knows how many rows they read

    @property
    def usd(self) -> Range:
        return sum((line.usd for line in self.lines), Range(0.0, 0.0, 0.0))

    @property
    def asked(self) -> set[str]:
        """The teachers in it."""
        return {line.teacher for line in self.lines}

    @property
    def worst_usd(self) -> float:
        return sum(line.worst_usd for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "usd": asdict(self.usd), "worst_usd": self.worst_usd}

    def texts(self) -> Iterator[str]:
        """What `still check` prints."""
        for line in self.lines:
            stored = f" ({line.stored:.0f} of {line.requests:.0f} are stored)" if line.stored else ""
            yield f"{line.stage} by {line.teacher}: {span(line.missing, '.0f')} requests to ask{stored}"
            tokens = f"{span(line.input_tokens, '.0f')} tokens in, {span(line.output_tokens, '.0f')} out"
            yield f"    {tokens}, {span(line.usd, '.4f')} usd, {line.worst_usd:.4f} at most; {line.how}"
        for name in self.unknown:
            yield f"knowledge.{name}: how many rows it reads from the hub is not known, nor what they cost; give it a `limit`"
        if self.lines:
            yield self.total()
            yield from (f"    {note}" for note in self.notes)

    def total(self) -> str:
        asked = sum((line.missing for line in self.lines), Range(0.0, 0.0, 0.0))
        money = f"{span(self.usd, '.4f')} usd, {self.worst_usd:.4f} at most"
        return f"estimated for teachers behind servers: {span(asked, '.0f')} requests, {money}"


@dataclass(frozen=True, slots=True)
class _Held:
    """What goes into a stage: rows that stand for `scale` times as many, or (without rows) how many and how long."""

    rows: Sequence[Record] | None
    number: float
    chars: float  # of a prompt, on the average

    @property
    def scale(self) -> float:
        return self.number / len(self.rows) if self.rows else 1.0


def estimate(loaded: Loaded, *, limit: int | None = None, rows: int = ROWS) -> Estimate:
    """Of every teacher behind a server. Raises RecipeError for one whose price nobody knows, TermsRefused for a prompt
    with a credential in it.

    The store is only looked at. Not counted: attempts that fail, cut-off answers that are asked again, and what training
    and evaluation ask of teachers.
    """
    from stillhouse.teachers.calls import Calls

    paid = {name for recipe in loaded.arms().values() for name in recipe.teachers if _hosted(recipe, name)}
    if not paid:
        return Estimate()
    recipe = loaded.recipe
    home = Path(recipe.store).expanduser() if recipe.store else default_store()
    watch = Watch(recipe.screening.secrets, recipe.screening.egress)
    found = Estimate(notes=list(_notes(recipe)))
    with TemporaryDirectory() as scratch:
        store = home if (home / "store.sqlite").is_file() else Path(scratch) / "store"
        with Calls(store, watch=watch, say=lambda text: None, pilot=Tally()) as calls:
            seen: list[tuple[str, Branch, Any]] = []
            for arm in loaded.arms().values():
                work = Knowledge(
                    arm, loaded.folder, Path(scratch), Teachers(arm, calls), Progress(Path(scratch), quiet=True)
                )
                for name, branch in arm.knowledge.items():
                    if (name, branch, arm.teachers) not in seen and asked_of(branch) & paid:
                        seen.append((name, branch, arm.teachers))
                        if branch.seeds.do == "hub" and not (
                            limit or branch.attempts or branch.seeds.knobs.get("limit")
                        ):
                            found.unknown.append(name)
                            continue
                        found.lines.extend(_Pilot(work, calls, paid, rows).branch(name, branch, limit))
    return found


def asked_of(branch: Branch) -> set[str]:
    return {name for entry in branch.elicit for name in _names(entry)}


def _names(entry: ElicitEntry) -> list[str]:
    return [entry.teacher] if isinstance(entry.teacher, str) else list(entry.teacher or [])


def _hosted(recipe: Recipe, name: str) -> bool:
    entry = recipe.teachers[name]
    return hasattr(import_file(PACKAGE / "teachers" / f"{entry.backend}.py").Teacher, "price")


def _notes(recipe: Recipe) -> Iterator[str]:
    if recipe.rounds.most > 1:
        yield f"one round is estimated; there may be {recipe.rounds.most}"
    if any(branch.keep for branch in recipe.knowledge.values()):
        yield "`keep` takes more seeds where rows are lost; the worst case has all of them"
    others = [f"evaluate {entry.label}" for entry in recipe.evaluate if entry.teacher in recipe.teachers]
    others += [
        "a reward in training"
        for phase in recipe.train
        if phase.rollouts and (phase.rollouts.reward or {}).get("teacher")
    ]
    if others:
        yield f"not in it: what is asked of teachers by {', '.join(others)}"


@dataclass
class _Pilot:
    """One recipe's branches, tried."""

    work: Knowledge
    calls: Any
    paid: set[str]
    rows: int

    def branch(self, name: str, branch: Branch, limit: int | None) -> Iterator[Line]:
        most, held = self._seeds(name, branch, limit)
        for number, entry in enumerate(branch.elicit):
            lines, held = self._stage(f"{name}/{number + 1:02d}-{entry.do}", name, entry, held)
            for line in lines:
                yield replace(line, worst_usd=line.worst_usd * most)

    def _seeds(self, name: str, branch: Branch, limit: int | None) -> tuple[float, _Held]:
        """Seeds spread evenly over the source, and by how many times more of them `keep` may take at the most."""
        bounds = [each for each in (limit, branch.attempts) if each is not None]
        if branch.seeds.do == "hub":
            told = branch.seeds.knobs.get("limit")
            return 1.0, _Held(None, min([*bounds, *([int(told)] if told else [])], default=0), _FRAME)
        function = self.work.bound("seeds", branch.seeds, f"knowledge.{name}.seeds")
        seeds = (each for each in function() if not isinstance(each, Lost))
        taken, number = spaced(islice(seeds, min(bounds, default=None)), self.rows)
        chars = sum(len(m.content) for seed in taken for m in seed.prompt) / max(1, len(taken))
        used = min(number, branch.keep or number)
        return number / max(1, used), _Held(taken, used, chars)

    def _stage(self, stage: str, branch: str, entry: ElicitEntry, held: _Held) -> tuple[list[Line], _Held]:
        names, lines, kept, asked, answered = _names(entry), [], list[Record](), 0, 0
        where = f"knowledge.{branch}.elicit"
        why = "" if held.rows else "the step before it is not answered yet"
        found = signature("elicit", entry.do, folder=self.work.folder, where=where)
        if not found.path.is_relative_to(PACKAGE):
            why = "your own function is not run before the run"
        elif re.search("Scores|Reveals", found.annotations.get("teacher", "")):
            why = why or f"{entry.do} looks into its teacher"
        if not names and not why:
            kept = [each for each in self.work.bound("elicit", entry, where)(held.rows) if not isinstance(each, Lost)]
            return [], _Held(kept, held.scale * len(kept), held.chars)
        for name in names:
            tally = self.calls.pilot = Tally(limit=200 * self.rows)
            if not why:
                assert held.rows is not None
                try:
                    function = self.work.bound("elicit", entry, where)
                    mine = routed(held.rows, names, name, entry.route, where)  # type: ignore[arg-type]
                    teacher = self.work.teachers.ask(name, entry.sampling, stage)
                    kept += [each for each in function(mine, teacher) if not isinstance(each, Lost)]
                except TermsRefused:
                    raise
                # whatever it trips over with nobody answering: an estimate must not keep a run from starting
                except _TRIPPED as error:
                    why = f"{entry.do} cannot be tried without answers ({type(error).__name__}: {error})"
            asked += tally.requests
            answered += len(tally.stored)
            if name in self.paid:
                lines.append(self._line(stage, name, entry, held, tally, len(names), why))
        if why or not answered:
            sampling = self._sampling(entry, names)
            return lines, _Held(None, held.number * sampling.n, held.chars + _BYTES * sampling.max_tokens / 2)
        return lines, _Held(kept, held.scale * len(kept) * max(asked, answered) / answered, held.chars)

    def _sampling(self, entry: ElicitEntry, names: list[str]) -> Sampling:
        told = (self.work.teachers.sampling(names[0]) if names else {}) | entry.sampling
        return Sampling(max_tokens=int(told.get("max_tokens", Sampling().max_tokens)), n=int(told.get("n", 1)))

    def _line(
        self, stage: str, name: str, entry: ElicitEntry, held: _Held, tally: Tally, teachers: int, why: str
    ) -> Line:
        backend, sampling = self.work.teachers.backend(name), self._sampling(entry, [name])
        self.work.teachers.ask(name, entry.sampling, stage)  # refuses a price that nobody knows
        price: Price = backend.price()
        if why:
            share = 1 if entry.route == "all" else 1 / teachers
            number = held.number * sampling.n * share
            missing, stored, bound = Range(number, number, number), 0.0, held.chars + _FRAME
            most, told = float(sampling.max_tokens), f"one request to a row is assumed, because {why}"
        else:
            there, gone = len(tally.stored) + len(tally.failed), len(tally.missing)
            number, stored = held.scale * (there + gone), held.scale * there
            missing = _scaled(gone, there + gone, held)
            bound = mean([backend.prompt_tokens(request) for request in tally.missing.values()])
            most = mean([request.sampling.max_tokens for request in tally.missing.values()])
            told = f"{len(held.rows or ())} of {held.number:.0f} rows tried"
        told_lengths, inputs, outputs = self._lengths(name, backend, tally, bound, most)
        inputs, outputs = missing * inputs, missing * outputs
        usd = Range(*(price.cost(round(i), round(o)) for i, o in zip(three(inputs), three(outputs))))
        worst = price.cost(round(missing.high * bound), round(missing.high * most))
        return Line(stage, name, number, stored, missing, inputs, outputs, usd, worst, f"{told}; {told_lengths}")

    def _lengths(self, name: str, backend: Any, tally: Tally, bound: float, most: float) -> tuple[str, Range, Range]:
        """How long prompts and answers are, in tokens each: what is known, and how."""
        seen = [(backend.prompt_tokens(request), answer) for request, answer in tally.stored.values()]
        if len(seen) >= _ENOUGH:
            share = sum(answer.input_tokens for _, answer in seen) / max(1, sum(each for each, _ in seen))
            inputs = Range(0.9 * share * bound, share * bound, min(bound, 1.1 * share * bound))
            lengths = [float(answer.output_tokens) for _, answer in seen]
            middle = mean(lengths)
            off = _NORMAL * deviation(lengths) * math.sqrt(1 / len(lengths) + 1 / max(1, len(tally.missing)))
            told = f"answers as long as {len(lengths)} stored ones of this stage (mean {middle:.0f} tokens)"
            return told, inputs, Range(max(0.0, middle - off), min(middle, most), min(most, middle + off))
        model, inputs = backend.identity().model, Range(bound / (2 * _BYTES), bound / _BYTES, bound)
        sql = "SELECT output_tokens FROM answer WHERE served_model = ? AND logprobs IS NULL LIMIT 2000"
        others = sorted(float(row[0]) for row in self.calls.store.rows(sql, [model]))
        if len(others) >= _ENOUGH:  # of other tasks: their spread, and not that of their mean, is what is known
            low, high = others[len(others) // 20], others[-1 - len(others) // 20]
            told = (
                f"answers as long as {len(others)} that {model} gave to other requests (mean {mean(others):.0f} tokens)"
            )
            return told, inputs, Range(low, min(mean(others), most), min(high, most))
        told = f"answers of half of max_tokens are assumed: fewer than {_ENOUGH} of {model} are stored"
        return f"{told}, a run with --limit {_ENOUGH} tells more", inputs, Range(0.0, most / 2, most)


def _scaled(gone: int, all_of_them: int, held: _Held) -> Range:
    """How many requests are missing, from those of the rows that were tried."""
    tried, scale = len(held.rows or ()), held.scale
    share = gone / max(1, all_of_them)
    left = max(0.0, 1 - tried / max(1.0, held.number))
    off = _NORMAL * math.sqrt(share * (1 - share) / max(1, tried) * left) * all_of_them * scale
    number = gone * scale
    return Range(max(0.0, number - off), number, min(all_of_them * scale, number + off))
