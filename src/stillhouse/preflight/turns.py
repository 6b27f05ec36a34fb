"""Do teacher and student read and end their turns alike? And what of a row is learned, to be seen."""

from collections.abc import Iterator
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.preflight.findings import Finding
from stillhouse.records import Example, Message, user
from stillhouse.render import TOGETHER, Reading, addressable, end_ids, fingerprint, render_prompt
from stillhouse.signals.contract import template_hash

_PROBE = "zqj"


def same_tokens(teacher_tokenizer: Any, student_tokenizer: Any, *, by_token: bool) -> Iterator[Finding]:
    """`by_token`: some objective compares distributions, which needs one tokenizer."""
    alike = fingerprint(teacher_tokenizer) == fingerprint(student_tokenizer)
    if not alike:
        yield Finding(
            "vocabulary",
            "warning" if by_token else "note",
            "teacher and student cut text differently: "
            + (
                "only what is aligned across tokenizers can be compared"
                if by_token
                else "the student learns from text alone"
            ),
        )
        return
    yield Finding("vocabulary", "ok", f"one tokenizer, {addressable(student_tokenizer)} ids")
    theirs, ours = end_ids(teacher_tokenizer)[0], end_ids(student_tokenizer)[0]
    if theirs != ours:
        names = [teacher_tokenizer.convert_ids_to_tokens(end) for end in (theirs, ours)]
        yield Finding(
            "end of turn",
            "refused" if by_token else "warning",
            f"the teacher ends a turn with {names[0]}, the student with {names[1]}: answers grow without end; "
            "give the student the teacher's chat template",
        )
    if template_hash(teacher_tokenizer) != template_hash(student_tokenizer):
        yield Finding(
            "chat template",
            "warning",
            "teacher and student have different chat templates: each reads the prompt in its own (0.29 nats a token were lost "
            "to this elsewhere), and stored signals are refused; give the student the teacher's",
        )
    else:
        yield Finding("chat template", "ok", "the same in teacher and student")


def own_turns(who: str, model: Any, tokenizer: Any) -> Iterator[Finding]:
    """How one model begins and ends."""
    yield from own_head(who, model.get_output_embeddings(), tokenizer)
    yield from _beginning(who, tokenizer)
    yield from _end(who, model, tokenizer)


def own_head(who: str, embeddings: Any, tokenizer: Any) -> Iterator[Finding]:
    """Whether there is a row for each id."""
    vocabulary, width = addressable(tokenizer), embeddings.weight.shape[0]
    if vocabulary > width:
        yield Finding(
            f"{who}'s head", "refused",
            f"the tokenizer gives ids up to {vocabulary - 1} and the {who}'s head has {width}: resize the model's embeddings",
        )  # fmt: skip
    elif vocabulary < width:
        yield Finding(f"{who}'s head", "note", f"{width - vocabulary} columns are padding; they are left out")


def _beginning(who: str, tokenizer: Any) -> Iterator[Finding]:
    bos = tokenizer.bos_token_id
    try:
        ids = render_prompt(tokenizer, user(_PROBE))
    except RecipeError as error:
        yield Finding(f"{who}'s template", "refused", str(error))
        return
    if bos is not None and ids[:2] == [bos, bos]:
        yield Finding(
            f"{who}'s beginning", "warning",
            f"a prompt begins with {tokenizer.bos_token} twice: the chat template writes it and the tokenizer adds one",
        )  # fmt: skip


def _end(who: str, model: Any, tokenizer: Any) -> Iterator[Finding]:
    ends = end_ids(tokenizer, getattr(model, "generation_config", None))
    name = tokenizer.convert_ids_to_tokens(ends[0])
    if getattr(tokenizer, "chat_template", None) is not None:
        turns = [Message("user", "a"), Message("assistant", _PROBE), Message("user", "b")]
        told = [{"role": turn.role, "content": turn.content} for turn in turns]
        text = tokenizer.apply_chat_template(told, tokenize=False)
        if name not in text.partition(_PROBE)[2]:
            yield Finding(
                f"{who}'s end of turn", "warning",
                f"its chat template writes no {name} after an answer: the student learns to end with it all the same, but a "
                "conversation of several turns will not have it; add it to the template",
            )  # fmt: skip
            return
    stops = model.generation_config.eos_token_id
    own = stops if isinstance(stops, list) else [stops]
    if ends[0] not in own and who == "teacher":
        yield Finding(
            f"{who}'s end of turn", "note", f"its generation settings do not stop at {name}; here it is stopped there"
        )
    else:
        yield Finding(f"{who}'s end of turn", "ok", f"{name}")


def masked(tokenizer: Any, example: Example, reading: Reading = TOGETHER) -> list[dict[str, Any]]:
    """The pieces of a row as the student reads it, in order: their text, and whether they are learned."""
    row = reading.whole(tokenizer, example.prompt, example.response)
    texts = _texts(tokenizer, row.ids)
    return [
        {"token": text, "id": token, "learned": at >= row.start} for at, (text, token) in enumerate(zip(texts, row.ids))
    ]


def _texts(tokenizer: Any, ids: list[int]) -> list[str]:
    """What each token adds to the text; a token alone would lose the blank before it."""
    found, before = [], ""
    for at in range(len(ids)):
        whole = tokenizer.decode(ids[: at + 1])
        found.append(whole[len(before) :] if whole.startswith(before) else tokenizer.decode([ids[at]]))
        before = whole
    return found


def coloured(pieces: list[dict[str, Any]], *, colour: bool, most: int = 160) -> str:
    """What is learned in green, the rest dim; without colour the learned part stands between « and »."""
    # the middle of a long row is left out, its border between prompt and answer never
    border = next((at for at, piece in enumerate(pieces) if piece["learned"]), len(pieces))
    first, last = max(0, border - most // 2), min(len(pieces), border + most // 2)
    shown = [_visible(piece["token"]) for piece in pieces]
    before, after = "".join(shown[first:border]), "".join(shown[border:last])
    lead, tail = "… " if first else "", " …" if last < len(pieces) else ""
    if colour:
        return f"\x1b[2m{lead}{before}\x1b[0m\x1b[1;32m{after}\x1b[0m{tail}"
    return f"{lead}{before}«{after}»{tail}"


def _visible(text: str) -> str:
    return text.replace("\n", "⏎")
