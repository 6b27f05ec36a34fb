"""Loading and saving students."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stillhouse.errors import RecipeError
from stillhouse.objectives import supervised
from stillhouse.train.student import load_student, save_student
from stillhouse.train.trainer import Term, train


@pytest.fixture
def folder(student, tmp_path):
    return save_student(student, tmp_path / "base")


def learn(student, data, out, **arguments):
    given = {"max_steps": 3, "learning_rate": 0.05, "per_device_train_batch_size": 4, **arguments}
    term = Term("supervised.cross_entropy", supervised.cross_entropy, "x")
    return train(student, [term], {"x": data}, teachers={}, arguments=given, out=out, seed=0)


def test_a_saved_student_is_what_transformers_loads(student, folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[1, 5, 9, 12]])
    assert torch.equal(loaded(ids).logits, student.model(ids).logits)
    assert AutoTokenizer.from_pretrained(folder).chat_template == student.tokenizer.chat_template
    assert loaded.generation_config.eos_token_id == [student.tokenizer.eos_token_id]
    assert load_student(folder).model.dtype == torch.float32
    assert load_student(folder, dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize("dora", [False, True])
def test_lora_trains_the_adapter_alone_and_saves_it_merged(dora, folder, tools, tmp_path):
    """O2: an adapter costs a part of the memory and gives a whole model."""
    student = load_student(folder, lora={"rank": 4, "dora": dora})
    assert student.model.peft_config["default"].lora_alpha == 8
    before = {name: p.detach().clone() for name, p in student.model.named_parameters()}
    learn(student, tools.examples(8), tmp_path / "out")
    changed = {name for name, p in student.model.named_parameters() if not torch.equal(before[name], p)}
    assert changed
    assert all("lora_" in name for name in changed)
    saved = save_student(student, tmp_path / "saved")
    ids = torch.tensor([[1, 5, 9, 12]])
    merged = AutoModelForCausalLM.from_pretrained(saved)
    assert torch.allclose(merged(ids).logits, student.model(ids).logits, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(merged(ids).logits, base(ids).logits, atol=1e-2)
    assert json.loads((saved / "adapter" / "adapter_config.json").read_text())["r"] == 4
    # the student itself is as it was, and can go on
    learn(student, tools.examples(8), tmp_path / "again")


def test_a_stopped_lora_goes_on_to_the_same_weights(folder, tools, tmp_path):
    straight = load_student(folder, lora={"rank": 4}, seed=5)
    learn(straight, tools.examples(8), tmp_path / "a", max_steps=4)
    learn(load_student(folder, lora={"rank": 4}, seed=5), tools.examples(8), tmp_path / "b", max_steps=4, save_steps=2)
    (tmp_path / "b" / "checkpoint-4" / "trainer_state.json").unlink(missing_ok=True)
    again = load_student(folder, lora={"rank": 4}, seed=5)
    learn(again, tools.examples(8), tmp_path / "b", max_steps=4, save_steps=2)
    first, second = straight.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_first_weights_of_a_lora_come_from_its_seed(folder):
    def first(seed):
        torch.manual_seed(99)
        parameters = load_student(folder, lora={"rank": 4}, seed=seed).model.named_parameters()
        return torch.cat([p.detach().flatten() for name, p in parameters if "lora_A" in name])

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_what_is_no_student_is_refused_in_one_sentence(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RecipeError, match=r"is not a model folder: it has no config\.json"):
        load_student(empty)
    with pytest.raises(RecipeError, match="there is no folder"):
        load_student(str(tmp_path / "missing"))
    with pytest.raises(RecipeError, match="no knob 'ranc'; did you mean 'rank'"):
        load_student(folder, lora={"ranc": 4})
    with pytest.raises(RecipeError, match=r"student\.kind: 'causal_llm' cannot be trained; did you mean 'causal_lm'"):
        load_student(folder, kind="causal_llm")
    with pytest.raises(RecipeError, match=r"student\.dtype: 'float31'; did you mean 'float32'"):
        load_student(folder, dtype="float31")
    (empty / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="cannot be loaded as a causal language model"):
        load_student(empty)
