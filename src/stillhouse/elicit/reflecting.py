"""Answers cut into segments, each with what was looked up for it and a critic's marks (R19, Self-RAG).

Marks are words in brackets, not new tokens. What was looked up is a turn of the user's, so that it is read and not
learnt.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stillhouse.elicit.asking import Unparsed, instructed
from stillhouse.elicit.bm25 import Index, corpus_of
from stillhouse.elicit.labeling import CLASS_ONLY, CODEBOOK, class_line
from stillhouse.elicit.lockstep import Part, Said, played
from stillhouse.graders.citation import statements
from stillhouse.records import Example, Lost, Message, Origin, Prompt, Seed, content_id
from stillhouse.selection.texts import instruction_text
from stillhouse.teachers.base import Generates

__all__: list[str] = []

RETRIEVAL, NO_RETRIEVAL = "[Retrieval]", "[No Retrieval]"
RELEVANT = ("[Relevant]", "[Irrelevant]")
SUPPORTED = ("[Fully supported]", "[Partially supported]", "[No support]")
USEFUL = tuple(f"[Utility:{number}]" for number in range(1, 6))
# what a critic is asked, by kind; the classes are those of the recipe skills/context_following/critic
KINDS: Mapping[str, Mapping[str, str]] = {
    "retrieve": {
        "Yes": "what it says should be looked up",
        "No": "it needs nothing, or rests on what was found before",
    },
    "relevance": {"Relevant": "the passage helps to answer", "Irrelevant": "it does not"},
    "support": {"Fully": "the passage says all of it", "Partially": "some of it", "No": "none of it"},
    "utility": {
        "5": "it answers in full",
        "4": "well, but for trifles",
        "3": "in part",
        "2": "hardly",
        "1": "not at all",
    },
}


def segmented(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    path: Path,
    field: str = "text",
    template: str | None = None,
    candidates: int = 5,
) -> Iterator[Example | Lost]:
    """Each answer as its writer should have written it: looking up, judging what was found, and marking every sentence.

    A critic (the teacher: most often `backend: run`, the student of skills/context_following/critic) says of each
    sentence whether to look something up; of the `candidates` best by BM25 for question and sentence it judges
    relevance and support, and the best stays: fully supported before partially before irrelevant ones. One example for
    each turn: "[Retrieval]" ends a turn, the passage is the user's next one, then "[Relevant] sentence [Fully
    supported]"; "[Utility:5]" ends the answer. Lost: "no_class" (an unreadable verdict about looking up or utility).
    Source: R19, K3.
    """
    corpus = corpus_of(path, field, template, "retrieval.segmented")
    index = Index(corpus)
    held: dict[str, Example] = {}

    def seeds() -> Iterator[Seed]:
        for one in examples:
            held[one.id] = one
            yield Seed(one.id, one.prompt, one.reference, one.columns, one.origin)

    def begin(seed: Seed) -> Part:
        return _turns(held[seed.id], index, corpus, candidates)

    for episode in played(seeds(), teacher, begin):
        one = held[episode.id]
        if isinstance(episode.result, Lost):
            yield replace(episode.result, parent=one.id, keys=episode.keys)
            continue
        keys = (*one.origin.keys, *episode.keys)
        for number, (prompt, response) in enumerate(episode.result, 1):
            name = content_id("Example", one.id, "segment", number, response, keys)
            columns = {**one.columns, "segment": number}
            yield Example(
                name, prompt, response, one.reference, (), columns, Origin((one.id,), one.origin.teacher, keys)
            )


def _turns(one: Example, index: Index, corpus: Sequence[str], candidates: int) -> Part:
    question, told, said, written = instruction_text(one), one.prompt, "", ""
    turns: list[tuple[Prompt, str]] = []
    for sentence in [each.text for each in statements(one.response)] or [one.response]:
        need = yield from _judged("retrieve", f"{question}\nAnswer so far: {written}\nNext sentence: {sentence}")
        if need is None:
            return Lost(one.id, "no_class", "quarantined", detail="retrieve")
        found = [corpus[at] for at, _ in index.best(f"{question} {sentence}", candidates)] if need == "Yes" else []
        passage, marks = yield from _chosen(question, sentence, found)
        if passage is None:
            said = f"{said} {NO_RETRIEVAL} {sentence}".strip()
        else:
            turns.append((told, f"{said} {RETRIEVAL}".strip()))
            told = (*told, Message("assistant", turns[-1][1]), Message("user", shown(passage)))
            said = f"{marks[0]} {sentence} {marks[1]}".strip()
        written = f"{written} {sentence}".strip()
    worth = yield from _judged("utility", f"{question}\nAnswer: {one.response}")
    if worth is None:
        return Lost(one.id, "no_class", "quarantined", detail="utility")
    return [*turns, (told, f"{said} [Utility:{worth}]")]


def shown(passage: str) -> str:
    return f"<paragraph>{passage}</paragraph>"


def _chosen(
    question: str, sentence: str, found: Sequence[str]
) -> Generator[Prompt, Said, tuple[str | None, tuple[str, str]]]:
    """The passage that supports a sentence best, with its marks; none where nothing was found or could be judged."""
    best: tuple[int, str, tuple[str, str]] | None = None
    for passage in found:
        about = yield from _judged("relevance", f"Passage 1: {passage}\n\n{question}")
        if about is None:
            continue
        holds = "No"
        if about == "Relevant":
            holds = (yield from _judged("support", f"Passage 1: {passage}\n\n{question}\nAnswer: {sentence}")) or "No"
        rank = ["Fully", "Partially", "No"].index(holds) + (3 if about == "Irrelevant" else 0)
        marks = (RELEVANT[0], SUPPORTED[rank]) if rank < 3 else (RELEVANT[1], "")
        if best is None or rank < best[0]:
            best = rank, passage, marks
        if rank == 0:
            break
    return (best[1], best[2]) if best else (None, ("", ""))


def _judged(kind: str, text: str) -> Generator[Prompt, Said, str | None]:
    """A critic's class of a text, asked as `labeling.classify` asks; None where it cannot be read."""
    classes = KINDS[kind]
    codebook = CODEBOOK.format(codebook="\n".join(f"- {name}: {meaning}" for name, meaning in classes.items()))
    asked = instructed((Message("user", text),), codebook, "before")
    said = yield instructed(asked, CLASS_ONLY)
    read = said if isinstance(said, Lost) else class_line(said, {name.casefold(): name for name in classes})
    return None if isinstance(read, Lost | Unparsed) else read
