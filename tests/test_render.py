"""Prompts, responses and masks as tokens: the same at inference and in training."""

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stillhouse.errors import RecipeError
from stillhouse.records import Message, user
from stillhouse.render import (
    addressable,
    end_ids,
    fingerprint,
    pad_id,
    render,
    render_prompt,
    same_rendering,
)

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<think>", "</think>"]


def tokenizer(template: str | None, **names: Any) -> Any:
    """Characters, except that `ab` merges into one token."""
    words = {token: i for i, token in enumerate([*SPECIAL, *"\n abcdefghij.[]", "ab"])}
    backend = Tokenizer(models.BPE(words, [("a", "b")], unk_token=None))
    backend.decoder = decoders.Fuse()
    backend.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    given = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | names
    made = PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=SPECIAL[3:], **given)
    made.chat_template = template
    return made


def tokens(made, ids):
    return made.convert_ids_to_tokens(ids)


def test_the_prompt_of_training_is_the_prompt_of_inference():
    made = tokenizer("<s>" + PLAIN)
    messages = (Message("system", "be"), *user("hi"))
    whole = render(made, messages, "ab.")
    assert whole.ids[: whole.start] == render_prompt(made, messages)
    assert tokens(made, whole.response) == ["ab", ".", "<|end|>"]
    assert tokens(made, whole.ids).count("<s>") == 1  # P32
    assert tokens(made, whole.ids[: whole.start])[-1] == "<|assistant|>"


def test_a_pad_token_equal_to_the_end_token_does_not_hide_it():
    """P03: the last position is the end of the turn, and an end token inside the text is only text."""
    made = tokenizer(PLAIN, eos_token="<|end|>", pad_token="<|end|>")
    whole = render(made, user("a"), "b<|end|>c")
    assert tokens(made, whole.response) == ["b", "<|end|>", "c", "<|end|>"]
    assert pad_id(made) == whole.ids[-1]


def test_the_end_of_a_turn_is_the_templates_and_every_stop_is_known():
    made = tokenizer(PLAIN)
    end = made.convert_tokens_to_ids("<|end|>")
    assert render(made, user("a"), "b").ids[-1] == end
    assert end_ids(made, SimpleNamespace(eos_token_id=[2, 7])) == (end, 2, 7)
    assert end_ids(made) == (end, made.eos_token_id)


def test_a_template_that_ends_no_turn_gets_the_tokenizers_end():
    made = tokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}b{% endif %}")
    assert tokens(made, render(made, user("a"), "c").ids) == ["a", "\n", "b", "c", "</s>"]


def test_what_the_template_supplies_is_not_learned():
    """P04: neither an empty thinking block before an answer, nor the opening that a generation prompt already has."""
    empty_block = PLAIN.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    )
    made = tokenizer(empty_block)
    assert tokens(made, render(made, user("a"), "b").response) == ["b", "<|end|>"]
    opened = tokenizer(PLAIN.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}"))
    whole = render(opened, user("a"), "b</think>c")
    assert tokens(opened, whole.ids[: whole.start])[-2:] == ["<think>", "\n"]
    assert tokens(opened, whole.response) == ["b", "</think>", "c", "<|end|>"]


def test_a_blank_that_the_template_puts_before_an_answer_is_learned():
    """After `[/INST]` style headers a model gives the blank itself."""
    turn = "{% if m.role == 'user' %}[{{ m.content }}]{% else %} {{ m.content }} </s>{% endif %}"
    made = tokenizer("{% for m in messages %}" + turn + "{% endfor %}")
    whole = render(made, user("a"), "b")
    assert tokens(made, whole.ids) == ["[", "a", "]", " ", "b", "</s>"]
    assert whole.start == 3


def test_tokens_that_would_merge_across_the_border_are_cut_there():
    made = tokenizer(None)
    whole = render(made, user("a"), "bc")
    assert tokens(made, render(made, user("c"), "ab").ids) == ["c", "ab", "</s>"]
    assert whole.ids[: whole.start] == render_prompt(made, user("a"))
    assert tokens(made, whole.response) == ["b", "c", "</s>"]


def test_completion_mode_joins_contents_by_newlines_and_starts_where_a_model_can():
    made = tokenizer(None)
    messages = (Message("system", "a"), *user("c"))
    assert tokens(made, render(made, messages, "d").ids) == ["a", "\n", "c", "d", "</s>"]
    assert tokens(made, render(made, (), "d").ids) == ["<s>", "d", "</s>"]
    assert render(made, (), "d").start == 1


def test_a_system_turn_that_a_template_refuses_moves_into_the_first_question():
    made = tokenizer("{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + PLAIN)
    folded = render_prompt(made, (Message("system", "a"), *user("b")))
    assert folded == render_prompt(made, user("a\n\nb"))
    with pytest.raises(RecipeError, match="refuses a prompt of these turns \\(system\\): no system turn"):
        render_prompt(made, (Message("system", "a"),))


def test_a_tokenizer_that_cannot_end_is_refused():
    made = tokenizer(None, eos_token=None)
    with pytest.raises(RecipeError, match="no end-of-sequence token"):
        render(made, user("a"), "b")


def test_a_long_answer_is_told_never_cut():
    whole = render(tokenizer(PLAIN), user("a"), "c" * 50)
    assert not whole.fits(20)
    assert whole.fits(None)
    assert whole.fits(len(whole.ids))
    assert len(whole.response) == 51


def test_fingerprints_tell_vocabularies_apart_and_nothing_else():
    """P33: the addressable ids are those the tokenizer can give."""
    one, two = tokenizer(PLAIN), tokenizer(None)
    assert fingerprint(one) == fingerprint(two)
    assert not same_rendering(one, two)
    assert same_rendering(one, tokenizer(PLAIN))
    before = fingerprint(tokenizer(PLAIN))
    padded = tokenizer(PLAIN)
    padded(["a", "ccc"], padding=True)
    assert fingerprint(padded) == before
    grown = tokenizer(PLAIN)
    grown.add_tokens(["new"])
    assert fingerprint(grown) != before
    assert addressable(grown) == addressable(one) + 1 == len(grown)
