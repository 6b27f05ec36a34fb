"""Text of the student's own, scored by its teacher (methods 3.3)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.errors import RecipeError
from stillhouse.evaluate.tasks.own_text import own_text


def letters() -> Any:
    """One token per letter a to f; 0 begins, 1 ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<s>", "</s>", *"abcdef"])}
    made = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def llama(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.json"
    path.write_text(json.dumps(["abcdef", "fed", "aabbcc"]))
    return path


def test_a_student_is_at_no_distance_from_itself(texts: Path) -> None:
    model = llama(0)
    rows = own_text(model, letters(), model, path=texts, prefix=3, max_new_tokens=9)
    assert [row.item_id for row in rows] == ["0", "1", "2"]
    assert all(abs(row.kl_to_teacher) < 1e-9 and row.tokens >= 1 for row in rows)


def test_the_sums_are_those_of_the_text_scored_alone(texts: Path) -> None:
    """R27: each row against one unpadded forward pass of both models over the same continuation."""
    from stillhouse.generate import generate

    student, teacher = llama(0), llama(1)
    rows = own_text(student, letters(), teacher, path=texts, prefix=4, max_new_tokens=9, seed=0)
    for number, prompt in enumerate([[0, 2, 3, 4], [0, 7, 6, 5], [0, 2, 2, 3]]):
        new = generate(student, [prompt], max_new_tokens=9, eos_ids=[1], pad_id=1, temperature=1.0, seeds=[number])[
            0
        ].ids
        ids_1T = torch.tensor([prompt + new])
        q_TV, p_TV = (model(ids_1T).logits[0].double().log_softmax(-1).detach() for model in (student, teacher))
        places = range(len(prompt) - 1, len(prompt) + len(new) - 1)
        kl = sum(float((q_TV[t].exp() * (q_TV[t] - p_TV[t])).sum()) for t in places)
        nll = -sum(float(p_TV[t, ids_1T[0, t + 1]]) for t in places)
        assert (rows[number].tokens, rows[number].kl_to_teacher) == (len(new), pytest.approx(kl, abs=1e-4))
        assert rows[number].teacher_nll == pytest.approx(nll, abs=1e-4)
        assert rows[number].value == pytest.approx(kl / len(new), abs=1e-4)
    assert any(row.kl_to_teacher > 0.1 for row in rows)


def test_without_a_teacher_it_says_what_to_write(texts: Path) -> None:
    with pytest.raises(RecipeError, match="teacher: <name>"):
        own_text(llama(0), letters(), None, path=texts)
