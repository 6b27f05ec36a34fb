"""Conversations with the teacher in both roles: the machinery behind `labeling.dialogue` (R09, R10)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from stillhouse.elicit.asking import OfSeed, in_chunks, instructed, keys_of, read_each
from stillhouse.records import Example, Lost, Message, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates, Outcome

__all__: list[str] = []

DONE = "[END]"
PERSON = (
    "You play a person who talks with an assistant{role}. Below is the conversation so far. Write what the person says next, in "
    "their own voice: a follow-up question, a doubt, a new wish. You are not the assistant: do not answer, do not offer help, do "
    "not thank at length. If the person has what they came for, write {done} and nothing else.\n\n{talk}\n\nPerson:"
)
# a person who offers help, or speaks of being a model, has taken the assistant's part
_FLIPPED = re.compile(
    r"^(?:sure|certainly|of course|absolutely)[,!.]|\bas an ai\b|\bhow (?:can|may) i (?:help|assist)\b"
    r"|\bi(?:'m| am) (?:here|happy|glad) to help\b",
    re.I,
)
_THANKS = frozenset(words("thank thanks you so much very welcome great day bye goodbye have a for the help"))


def simulated(
    seeds: Iterable[Seed], teacher: Generates, exchanges: int, person: str, assistant: str | None
) -> "Iterator[Talk]":
    """Conversations that have ended, in the order of their seeds; 64 are held at a time, one turn of all after the other."""
    sampling = replace(teacher.sampling, n=1)
    for chunk in in_chunks(seeds):
        talks = [
            Talk(seed, list(instructed(seed.prompt, _role(assistant, seed), "system")), _role(person, seed))
            for seed in chunk
        ]
        for turn in range(exchanges):
            going = [talk for talk in talks if not talk.ended]
            for talk, _, outcome, said in read_each(going, teacher, Talk.as_assistant, str.strip, sampling=sampling):
                talk.answered(said, outcome)
            going = [talk for talk in talks if not talk.ended]
            if turn == exchanges - 1 or not going:
                continue
            for talk, _, outcome, said in read_each(going, teacher, Talk.as_person, str.strip, sampling=sampling):
                talk.continued(said, outcome)
        yield from talks


def _role(text: str | None, seed: Seed) -> str:
    """A description of a role with the seed's own columns filled in."""
    for name, value in seed.columns.items():
        text = (text or "").replace(f"{{{name}}}", str(value))
    return text or ""


@dataclass(slots=True)
class Talk(OfSeed):
    seed: Seed
    messages: list[Message]
    person: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    ended: str = ""
    fault: Lost | None = None

    def as_assistant(self) -> Prompt:
        return tuple(self.messages)

    def as_person(self) -> Prompt:
        role = f" ({self.person})" if self.person else ""
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
