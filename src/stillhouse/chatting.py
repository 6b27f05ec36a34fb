"""`still chat`: talk to a student in the terminal."""

from pathlib import Path

from stillhouse.errors import RecipeError
from stillhouse.records import Message
from stillhouse.store import read_json
from stillhouse.teachers.base import Answer, Request, Sampling


def chat(student: Path, *, max_tokens: int = 256) -> None:
    """Reads turns until an empty line or the end of input; the whole conversation is the prompt of each turn."""
    if not (student / "config.json").is_file():
        raise RecipeError(f"{student}: no student in it; the run has not trained one")
    if any("SequenceClassification" in name for name in read_json(student / "config.json").get("architectures") or []):
        raise RecipeError(
            f"{student}: this student scores and does not write, so there is nobody to talk to; "
            "its README.md says what it gives (evaluate: scored.labels or scored.pairs asks it)"
        )
    from stillhouse.teachers.transformers import Teacher

    model, turns = Teacher(model=str(student)), []
    while True:
        try:
            text = input("you: ").strip()
        except EOFError:
            return
        if not text:
            return
        turns.append(Message("user", text))
        outcome = next(iter(model.ask([Request(tuple(turns), Sampling(max_tokens=max_tokens))])))
        answer = outcome.result.text if isinstance(outcome.result, Answer) else f"({outcome.result.kind})"
        print(f"student: {answer}")
        turns.append(Message("assistant", answer))
