"""What ships: the tokenizer, the template, the size of the folders, and answers of the teacher."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from stillhouse.pocket import FOLDER, student_path, teacher_path
from tools.pocket.chat import render
from tools.pocket.measure import EASY, answers, held_out
from tools.pocket.mixture import SKILLS

TOKENIZER = AutoTokenizer.from_pretrained(teacher_path())
FEW = 20
# Well under what tools/pocket/results.json says: this catches broken weights, not weaker ones.
FLOORS = {
    "word_problems": 10,
    "constraints": 4,
    "reading": 5,
    "tools": 8,
    "classify": 10,
    "free_text": 11,
    EASY: 14,
}


@pytest.fixture(scope="module")
def teacher() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(teacher_path(), dtype=torch.float32).eval()


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str):
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_digits_are_single_and_special_tokens_are_known():
    assert TOKENIZER.tokenize("2026") == list("2026")
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token, TOKENIZER.bos_token) == ("<|end|>", "<|pad|>", None)
    for role in ("system", "user", "assistant", "tool"):
        assert len(TOKENIZER(f"<|{role}|>")["input_ids"]) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_a_prompt_is_a_token_prefix_of_its_conversation(question: str, answer: str):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    prompt = TOKENIZER.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    whole = TOKENIZER.apply_chat_template(messages, return_dict=False)
    assert whole[: len(prompt)] == prompt
    assert TOKENIZER.decode(whole) == render(messages)


def test_the_template_marks_what_the_assistant_says():
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Good day."}]
    output = TOKENIZER.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mask in zip(output["input_ids"], output["assistant_masks"], strict=True) if mask]
    assert TOKENIZER.decode(marked) == "Good day.<|end|>"


def test_the_folders_are_small_and_share_a_tokenizer():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 16e6
    same = [(folder / "tokenizer.json").read_bytes() for folder in (teacher_path(), student_path())]
    assert same[0] == same[1]


def test_the_student_is_at_most_a_third(teacher: torch.nn.Module):
    student = AutoModelForCausalLM.from_pretrained(student_path())
    assert student.dtype == torch.float16
    assert 3 * student.num_parameters() <= teacher.num_parameters()


@pytest.mark.parametrize("name", FLOORS)
def test_the_teacher_answers(teacher: torch.nn.Module, name: str):
    items = held_out(name, FEW)
    said = answers(teacher, TOKENIZER, items)
    right = sum(SKILLS[item.skill].right(item, text) for item, text in zip(items, said, strict=True))
    assert right >= FLOORS[name]
