"""Reading an answer: reasoning apart from the answer, and structured answers without a guess."""

__all__ = ["split_reasoning"]

_OPEN, _CLOSE = "<think>", "</think>"


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a text in which a model thinks aloud first. Either tag may be missing.

    Without the closing tag everything is reasoning; without the opening one (some templates write it themselves)
    everything before the closing tag. Tags inside an answer that does not begin with reasoning stay where they are.
    """
    start = text.lstrip()
    if start.startswith(_OPEN):
        reasoning, closed, answer = start[len(_OPEN) :].partition(_CLOSE)
        return (reasoning.strip(), answer.lstrip()) if closed else (reasoning.strip(), "")
    before, closed, answer = text.partition(_CLOSE)
    if closed and _OPEN not in before:
        return before.strip(), answer.lstrip()
    return "", text
