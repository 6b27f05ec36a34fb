"""More cases of what a model gets wrong and could learn: weak subgroups of labelled data (R51, TDG)."""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.elicit.asking import Unparsed, grown, keys_of, read_each
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Message, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.features import groups_of, rows_of
from stillhouse.selection.influence import Meter
from stillhouse.selection.texts import prompt_text
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates

__all__ = ["expanded"]

MORE = (
    "Here are cases of one kind, each with its right label.\n\n{shown}\n\nWrite {count} more cases of this kind that differ from "
    "these and from one another. Write each behind [Text] and its right label, one of {labels}, behind [Label]."
)


def expanded(
    seeds: Iterable[Seed],
    teacher: Generates,
    *,
    model: Path | str,
    embedder: str | None = None,
    groups: int = 8,
    worst: int = 2,
    shown: int = 4,
    count: int = 8,
    gain: float = 0.0,
    harm: float | None = None,
    seed: int = 0,
) -> Iterator[Example | Lost]:
    """New labelled cases for the groups of development data where the model loses most and can still learn.

    The seeds, each with its label as the reference, fall into `groups` by k-means (vectors of the static `embedder`, or of
    hashed words). A group's loss is the local `model`'s mean loss in nats on its labels (`pocket` is the shipped student).
    Whether it could learn is tried in context: with `shown` cases of the group before them, the loss on its other cases must
    fall by more than `gain` nats (generalisation), and that on cases of other groups may not rise by more than `harm`
    (interference; not looked at unless given). For the `worst` groups that pass, the teacher writes `count` cases a request
    (`sampling: {n: ...}` for more). Columns: `group`, `group_loss`, `group_gain`. The cases themselves are not given back: keep
    development data out of training. Lost: "not_weak", "cannot_learn", "does_harm", "small_group" (fewer than `shown` + 1),
    "no_score"; of what was written "no_case", "unknown_label", "repeated". Look at what it writes before you train: TDG has
    people do so. Source: R51 (TDG), SK09.
    """
    known = list(seeds)
    if any(one.reference is None for one in known):
        raise RecipeError("weak_groups.expanded: a seed has no reference; it must hold the label")
    meter = Meter(str(model))
    if not known:
        return
    places = groups_of(rows_of((prompt_text(one.prompt) for one in known), embedder), groups, seed)
    found = [
        _Group(number, [one for one, at in zip(known, places, strict=True) if at == number])
        for number in sorted(set(map(int, places)))
    ]
    draw = random.Random(seed)
    for group in found:
        group.measure(meter, [one for other in found if other is not group for one in other.members], shown, draw)
    chosen: list[_Group] = []
    for group in sorted(found, key=lambda group: -group.loss):
        fault = group.fault(gain, harm) or ("not_weak" if len(chosen) == worst else "")
        if fault:
            yield from (Lost(one.id, fault, "not_attempted") for one in group.members)
        else:
            chosen.append(group)
    labels = sorted({one.reference or "" for one in known})
    seen = {tuple(words(prompt_text(one.prompt))) for one in known}
    for group in chosen:
        yield from _written(group, teacher, labels, count, seen)


@dataclass(slots=True)
class _Group:
    number: int
    members: list[Seed]
    loss: float = float("nan")
    gain: float | None = None
    harm: float = 0.0
    shown: tuple[Seed, ...] = ()

    def measure(self, meter: Meter, others: Sequence[Seed], shown: int, draw: random.Random) -> None:
        plain = meter.losses([(one.prompt, one.reference or "") for one in self.members])
        told = [value for value in plain if value is not None]
        self.loss = sum(told) / len(told) if told else float("-inf")
        if len(self.members) <= shown or not told:
            return
        self.shown = tuple(draw.sample(self.members, shown))
        self.gain = -_change(meter, self.shown, [one for one in self.members if one not in self.shown])
        self.harm = _change(meter, self.shown, draw.sample(list(others), min(len(others), 32)))

    def fault(self, gain: float, harm: float | None) -> str:
        if self.loss == float("-inf"):
            return "no_score"
        if self.gain is None:
            return "small_group"
        if self.gain <= gain:
            return "cannot_learn"
        return "does_harm" if harm is not None and self.harm > harm else ""


def _change(meter: Meter, shown: Sequence[Seed], probed: Sequence[Seed]) -> float:
    """By how many nats the mean loss on labels changes when `shown` stand before; what cannot be scored is left out."""
    before: Prompt = tuple(
        message for one in shown for message in (*one.prompt, Message("assistant", one.reference or ""))
    )
    plain = meter.losses([(one.prompt, one.reference or "") for one in probed])
    helped = meter.losses([((*before, *one.prompt), one.reference or "") for one in probed])
    changes = [b - a for a, b in zip(plain, helped, strict=True) if a is not None and b is not None]
    return sum(changes) / len(changes) if changes else 0.0


def _written(
    group: _Group, teacher: Generates, labels: Sequence[str], count: int, seen: set[tuple[str, ...]]
) -> Iterator[Example | Lost]:
    listed = "\n".join(f"[Text] {prompt_text(one.prompt)}\n[Label] {one.reference}" for one in group.shown)
    prompt = user(MORE.format(shown=listed, count=count, labels=", ".join(labels)))
    spelled = {label.casefold(): label for label in labels}
    for one, slot, outcome, cases in read_each([group.members[0]], teacher, lambda _: prompt, _cases):
        if isinstance(cases, Lost):
            yield cases
            continue
        for text, named in cases[:count]:
            label, tokens = spelled.get(named.strip(" .\"'").casefold()), tuple(words(text))
            if label is None or tokens in seen:
                reason = "unknown_label" if label is None else "repeated"
                yield Lost(one.id, reason, slot=slot, detail=text[:80], keys=keys_of(outcome))
                continue
            seen.add(tokens)
            columns = {"group": group.number, "group_loss": group.loss, "group_gain": group.gain}
            made = grown(group.shown, text, outcome, teacher.name, reference=label)
            name = content_id("Example", made.id, label)
            origin = Origin(made.origin.parents, teacher.name, keys_of(outcome))
            yield Example(
                name, made.prompt, label, label, outcome.request.messages, {**made.columns, **columns}, origin
            )


def _cases(text: str) -> list[tuple[str, str]] | Unparsed:
    found = re.findall(r"\[Text\][ \t:]*(.*?)\s*\[Label\][ \t:]*([^\n\[]+)", text, re.S | re.I)
    return [(body.strip(), label) for body, label in found if body.strip()] or Unparsed("no_case", text[-80:])
