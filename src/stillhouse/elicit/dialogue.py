"""Conversations with the teacher in both roles: it asks as a person would, and answers as the assistant (R09, R10).

A kind of labeling; in a file of its own because it asks in turns.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from stillhouse.elicit.asking import in_chunks, instructed, keys_of, read_each, seeds_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Message, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates, Outcome

__all__ = ["simulate"]

DONE = "[END]"
PERSON = (
    "You play a person who talks with an assistant{role}. Below is the conversation so far. Write what the person says next, in "
    "their own voice: a follow-up question, a doubt, a new wish. You are not the assistant: do not answer, do not offer help, do "
    "not thank at length. If the person has what they came for, write {done} and nothing else.\n\n{talk}\n\nPerson:"
)
# a person who offers help, or speaks of being a model, has taken the assistant's part
_FLIPPED = re.compile(
    r"^(?:sure|certainly|of course|absolutely)[,!.]|\bas an ai\b|\bhow (?:can|may) i (?:help|assist)\b|\bi(?:'m| am) (?:here|happy|glad) to help\b",
    re.I,
)
_THANKS = frozenset(words("thank thanks you so much very welcome great day bye goodbye have a for the help"))


def simulate(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    exchanges: int = 4,
    person: str = "",
    assistant: str | None = None,
    learn: Literal["each", "last"] = "each",
) -> Iterator[Example | Lost]:
    """A conversation that begins with the seed's prompt; the teacher answers, then speaks for the person, in turns.

    `person` and `assistant` describe the two roles (R10: role pairs); the assistant's is a system message that the
    student keeps. It ends after `exchanges`, when the person is done, takes the assistant's part, repeats itself or
    only says thanks (these lines are left out). `learn: each` gives an example per assistant turn, `last` the last
    one only. A conversation is lost only if its first answer is. The column `ended` says why it ended. Sources: R09
    (UltraChat), R10 (CAMEL), R62, SK02.
    """
    if exchanges < 1:
        raise RecipeError(f"dialogue.simulate: exchanges is {exchanges}; write 1 or more")
    sampling = replace(teacher.sampling, n=1)
    role = f" ({person})" if person else ""
    for chunk in in_chunks(seeds_of(seeds)):
        talks = [_Talk(seed, list(instructed(seed.prompt, assistant, "system"))) for seed in chunk]
        for turn in range(exchanges):
            going = [talk for talk in talks if not talk.ended]
            for talk, _, outcome, said in read_each(
                going, teacher, lambda t: tuple(t.messages), str.strip, sampling=sampling
            ):  # type: ignore[type-var]
                talk.answered(said, outcome)  # type: ignore[attr-defined]
            going = [talk for talk in talks if not talk.ended]
            if turn == exchanges - 1 or not going:
                continue
            for talk, _, outcome, said in read_each(
                going, teacher, lambda t: t.as_person(role), str.strip, sampling=sampling
            ):  # type: ignore[type-var, attr-defined]
                talk.continued(said, outcome)  # type: ignore[attr-defined]
        for talk in talks:
            yield from talk.given(learn, teacher.name)


@dataclass(slots=True)
class _Talk:
    seed: Seed
    messages: list[Message]
    outcomes: list[Outcome] = field(default_factory=list)
    ended: str = ""
    fault: Lost | None = None

    @property
    def id(self) -> str:
        return self.seed.id

    @property
    def reference(self) -> str | None:
        return self.seed.reference

    def as_person(self, role: str) -> Prompt:
        names = {"user": "Person", "assistant": "Assistant"}
        lines = [f"{names[m.role]}: {m.content}" for m in self.messages if m.role in names]
        return user(PERSON.format(role=role, done=DONE, talk="\n\n".join(lines)))

    def answered(self, said: str | Lost, outcome: Outcome) -> None:
        if isinstance(said, Lost):
            self.fault, self.ended = said, said.reason
            if self.messages[-1].role == "user" and len(self.messages) > len(self.seed.prompt):
                self.messages.pop()
            return
        self.messages.append(Message("assistant", said))
        self.outcomes.append(outcome)

    def continued(self, said: str | Lost, outcome: Outcome) -> None:
        text = said if isinstance(said, str) else ""
        text = re.sub(r"^(?:Person|User|Human)\s*:\s*", "", text).strip()
        earlier = [words(message.content) for message in self.messages]
        if isinstance(said, Lost):
            self.ended = said.reason
        elif DONE in text or not text:
            self.ended = "done"
        elif _FLIPPED.search(text):
            self.ended = "role_flip"
        elif words(text) in earlier:
            self.ended = "repeats"
        elif set(words(text)) <= _THANKS:
            self.ended = "thanks"
        else:
            self.messages.append(Message("user", text))
            self.outcomes.append(outcome)

    def given(self, learn: str, teacher: str) -> Iterator[Example | Lost]:
        turns = [i for i, m in enumerate(self.messages) if m.role == "assistant" and i >= len(self.seed.prompt)]
        if not turns:
            yield self.fault or Lost(self.seed.id, "no_answer")
            return
        for i in turns if learn == "each" else turns[-1:]:
            prompt, response = tuple(self.messages[:i]), self.messages[i].content
            keys = keys_of(*self.outcomes)
            columns = {**self.seed.columns, "ended": self.ended or "length"}
            name = content_id("Example", self.seed.id, prompt, response, keys)
            yield Example(name, prompt, response, None, prompt, columns, Origin((self.seed.id,), teacher, keys))
