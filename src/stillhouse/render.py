"""The one place that renders chat templates and loss masks, for teachers and students alike.

A model reads `render_prompt(...)` when it answers and learns from `render(...)`, whose ids begin with the very same
tokens: what is trained on is what is met at inference. What the template writes for the assistant by itself (the
header of its turn, an empty thinking block) stays outside the answer; the answer is the response as it stands and one
end-of-turn token. What is learned is told by position, so that a padding id equal to the end-of-turn id does no harm.

A tokenizer without a chat template is used in completion mode: the prompt is the contents of the messages joined by
newlines after the tokenizer's own beginning-of-sequence token, the response continues that text, and the tokenizer's
end-of-sequence token ends it.

An encoder-decoder reads the two apart: its encoder the prompt, its decoder the response. An encoder that scores reads the
pair as its tokenizer puts one together. Which of the three it is, is the model's `Reading`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from stillhouse.errors import RecipeError
from stillhouse.records import Message, Prompt, user

_PROBE = "zqj"  # a response that no template contains, to see what a template writes around one


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and its response as one sequence: `ids[start:]` is what a student learns, its end-of-turn token last."""

    ids: list[int]
    start: int

    @property
    def response(self) -> list[int]:
        return self.ids[self.start :]

    def fits(self, max_length: int | None) -> bool:
        """An answer that does not fit is left out by the caller: cut answers teach a student never to stop."""
        return max_length is None or len(self.ids) <= max_length


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a tokenizer and its template put around a response."""

    template: str | None
    start_ids: list[int]  # before the text of a prompt, in completion mode
    lead: str  # blanks between the generation prompt and the response
    end_id: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model is given a prompt alone, and a prompt with its response.

    `apart`: each to a network of its own; `alone`: each text is a sequence by itself, made a vector.
    """

    prompt: Callable[[Any, Sequence[Message]], list[int]]
    whole: Callable[[Any, Sequence[Message], str], Rendered]
    apart: bool = False
    alone: bool = False


_frames: WeakKeyDictionary[Any, _Frame] = WeakKeyDictionary()
_fingerprints: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The tokens a model is given before it answers: the conversation and the header of the assistant's turn.

    A template that knows no system role gets that message's text in front of the first user turn. Raises RecipeError
    where the template refuses the conversation.
    """
    frame = _frame(tokenizer)
    return _prompt_ids(tokenizer, frame, _prompt_text(tokenizer, frame, messages))


def render(tokenizer: Any, messages: Sequence[Message], response: str) -> Rendered:
    """The prompt of `render_prompt`, the response, and exactly one end-of-turn token."""
    frame = _frame(tokenizer)
    text = _prompt_text(tokenizer, frame, messages)
    prompt = _prompt_ids(tokenizer, frame, text)
    answer = _continuation(tokenizer, frame, text, prompt, frame.lead + response)
    return Rendered([*prompt, *answer, frame.end_id], len(prompt))


def render_source(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """What an encoder is given: the conversation, closed as the tokenizer closes a text (T5 and BERT were trained so)."""
    template = getattr(tokenizer, "chat_template", None)
    if template is not None and messages:
        return render_prompt(tokenizer, messages)
    return tokenizer(_contents(messages), verbose=False)["input_ids"]


def render_apart(tokenizer: Any, messages: Sequence[Message], response: str) -> Rendered:
    """The prompt of `render_source`, then the response as the tokenizer writes a text of its own, closed by one end."""
    source, templated = render_source(tokenizer, messages), getattr(tokenizer, "chat_template", None) is not None
    answer = _encode(tokenizer, response) if templated else tokenizer(text_target=response, verbose=False)["input_ids"]
    end = end_ids(tokenizer)[0]
    return Rendered([*source, *answer, *([] if answer[-1:] == [end] else [end])], len(source))


def render_pair(tokenizer: Any, messages: Sequence[Message], response: str) -> Rendered:
    """Prompt and response as the tokenizer makes one of two texts; `start` is where the second begins."""
    whole = tokenizer(_contents(messages), response, verbose=False)
    parts = whole.sequence_ids(0)
    return Rendered(whole["input_ids"], parts.index(1) if 1 in parts else len(parts) - 1)


TOGETHER = Reading(render_prompt, render)
APART = Reading(render_source, render_apart, apart=True)
PAIRED = Reading(render_source, render_pair)
ALONE = Reading(render_source, render_pair, alone=True)


def reading_of(model: Any) -> Reading:
    """How this model of the transformers library reads, by what it is."""
    if model.config.is_encoder_decoder:
        return APART
    return PAIRED if encodes(model) else TOGETHER


def encodes(model: Any) -> bool:
    """Whether it scores with a head over an encoder: one that looks both ways (BERT and its kin)."""
    named = type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
    return named.endswith("ForSequenceClassification") and not hasattr(model, "score")


def types_texts(tokenizer: Any) -> bool:
    """Whether it tells the two texts of a pair apart by a type of token, as BERT's does and RoBERTa's does not."""
    return "token_type_ids" in tokenizer.model_input_names


def end_ids(tokenizer: Any, generation_config: Any = None) -> tuple[int, ...]:
    """Every id that ends a turn, the one that `render` writes first; then the tokenizer's and the model's own."""
    more = getattr(generation_config, "eos_token_id", None)
    found = [_frame(tokenizer).end_id, tokenizer.eos_token_id, *(more if isinstance(more, list | tuple) else [more])]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def pad_id(tokenizer: Any) -> int:
    """An id to fill rows with. Any will do: attention masks and labels go by position."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else _frame(tokenizer).end_id)


def fingerprint(tokenizer: Any) -> str:
    """16 hex digits that two tokenizers share when they cut text in the same way into the same ids.

    Chat templates and the state of padding and truncation do not count.
    """
    if tokenizer not in _fingerprints:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        state = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
        state.pop("padding", None)
        state.pop("truncation", None)
        text = json.dumps(state, sort_keys=True, ensure_ascii=False)
        _fingerprints[tokenizer] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return _fingerprints[tokenizer]


def same_rendering(first: Any, second: Any) -> bool:
    """Whether two tokenizers turn every conversation into the same tokens."""
    return _frame(first) == _frame(second) and fingerprint(first) == fingerprint(second)


def addressable(tokenizer: Any) -> int:
    """One more than the largest id that the tokenizer can give; a model's head may be padded beyond it."""
    return max(tokenizer.get_vocab().values()) + 1


def _encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _chat(tokenizer: Any, messages: Sequence[Message], *, answering: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answering)


def _prompt_text(tokenizer: Any, frame: _Frame, messages: Sequence[Message]) -> str:
    if frame.template is None or not messages:  # nothing was asked: plain text, without anybody's turn around it
        return _contents(messages)
    try:
        return _chat(tokenizer, messages, answering=True)
    except TemplateError as error:
        folded = _without_system(messages)
        if folded is None:
            roles = ", ".join(message.role for message in messages) or "no messages"
            raise RecipeError(
                f"the chat template of {_name(tokenizer)} refuses a prompt of these turns ({roles}): {error.args[0]}; "
                "write the prompt in turns it accepts"
            ) from error
    return _prompt_text(tokenizer, frame, folded)


def _contents(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages)


def _without_system(messages: Sequence[Message]) -> Prompt | None:
    if len(messages) < 2 or messages[0].role != "system" or messages[1].role != "user":
        return None
    return (Message("user", f"{messages[0].content}\n\n{messages[1].content}"), *messages[2:])


def _prompt_ids(tokenizer: Any, frame: _Frame, text: str) -> list[int]:
    ids = [*frame.start_ids, *_encode(tokenizer, text)]
    if ids:
        return ids
    # a model needs one token to answer from; models without a beginning-of-sequence token were trained after end_id
    return [frame.end_id if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)]


def _continuation(tokenizer: Any, frame: _Frame, text: str, prompt: list[int], answer: str) -> list[int]:
    """The answer's tokens as they follow the prompt; where the two would merge at the border, it is cut alone."""
    whole = [*frame.start_ids, *_encode(tokenizer, text + answer)]
    if whole[: len(prompt)] == prompt and text:
        return whole[len(prompt) :]
    # after a newline, so that tokenizers which put a blank before a text's first word do not invent one
    anchor, anchored = _encode(tokenizer, "\n"), _encode(tokenizer, "\n" + answer)
    if text and anchored[: len(anchor)] == anchor:
        return anchored[len(anchor) :]
    return _encode(tokenizer, answer)


def _frame(tokenizer: Any) -> _Frame:
    template = getattr(tokenizer, "chat_template", None)
    known = _frames.get(tokenizer)
    if known is None or known.template != template:
        known = _frames[tokenizer] = _completion(tokenizer) if template is None else _templated(tokenizer, template)
    return known


def _completion(tokenizer: Any) -> _Frame:
    bare, dressed = _encode(tokenizer, _PROBE), tokenizer(_PROBE)["input_ids"]
    positions = [at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare]
    return _Frame(None, dressed[: positions[0]] if positions else [], "", _end_of_sequence(tokenizer))


def _templated(tokenizer: Any, template: str) -> _Frame:
    question = user("a")
    prompt = _chat(tokenizer, question, answering=True)
    before, _, after = _chat(tokenizer, (*question, Message("assistant", _PROBE)), answering=False).rpartition(_PROBE)
    lead = before.removeprefix(prompt)
    closing = _encode(tokenizer, after.lstrip())
    special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    end_id = closing[0] if closing and closing[0] in special else _end_of_sequence(tokenizer)
    return _Frame(template, [], lead if before.startswith(prompt) and lead.isspace() else "", end_id)


def _end_of_sequence(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            f"the tokenizer of {_name(tokenizer)} has no end-of-sequence token, so a student could not learn to stop; "
            "set eos_token in its tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
