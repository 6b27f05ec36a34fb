"""Which positions are learned, and that sequences in one row do not see each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.records import Example, content_id
from stillhouse.train.batch import Item, rendered
from stillhouse.train.forward import packs_sequences, show
from stillhouse.train.packing import pack, stored_beliefs


def packed_logits(model, batch):
    arrays = (batch.ids_RC, batch.position_RC, batch.target_RC)
    return show(model, *(torch.from_numpy(array) for array in arrays)).logits_NV


def items(*sizes, start=2):
    draw = np.random.default_rng(0)
    return [Item(draw.integers(3, 40, size).astype(np.int32), start, index) for index, size in enumerate(sizes)]


def test_the_gradient_is_nonzero_exactly_where_the_answer_is_predicted(student, tools):
    """P01: positions len(prompt) - 1 to len - 2 of each sequence."""
    branch = rendered("x", tools.examples(3), student.tokenizer, max_length=None)
    batch = pack({"x": [item for i in range(3) for item in branch.items(i)]}, pad=0, packing=False)
    logits_RCV = student.model(torch.from_numpy(batch.ids_RC)).logits.detach().requires_grad_()
    logits_NV = logits_RCV[torch.from_numpy(batch.target_RC)]
    loss = torch.nn.functional.cross_entropy(logits_NV, torch.from_numpy(batch.target_ids_N), reduction="sum")
    loss.backward()
    touched_RC = logits_RCV.grad.abs().sum(-1) > 0
    for row, item in zip(touched_RC, batch.items["x"]):
        expected = range(item.start - 1, len(item.ids) - 1)
        assert row.nonzero()[:, 0].tolist() == list(expected)


def test_targets_are_the_answers_with_one_end_each(student, tools):
    """P03."""
    examples = tools.examples(6)
    branch = rendered("x", examples, student.tokenizer, max_length=None)
    batch = pack({"x": [item for i in range(6) for item in branch.items(i)]}, pad=0)
    assert np.count_nonzero(batch.target_ids_N == student.tokenizer.eos_token_id) == 6
    said = student.tokenizer.decode(batch.target_ids_N).split("<|end|>")[:-1]
    assert sorted(said) == sorted(example.response for example in examples)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_sequences_are_as_alone_values_and_gradients(attention, student):
    model = student.model
    model.set_attn_implementation(attention)
    given_items = items(40, 9, 20, 31, 8, 12)
    batch = pack({"x": given_items}, pad=0)
    assert batch.shared
    assert packs_sequences(model)
    packed = packed_logits(model, batch)
    packed.square().sum().backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    at = 0
    for item in batch.items["x"]:
        alone = model(torch.from_numpy(item.ids.astype(np.int64))[None]).logits[0, item.start - 1 : -1]
        assert torch.allclose(packed[at : at + item.targets], alone, atol=1e-5)
        at += item.targets
        alone.square().sum().backward()
    assert at == len(packed)
    for name, parameter in model.named_parameters():
        assert torch.allclose(grads[name], parameter.grad, rtol=1e-3, atol=1e-3 * float(parameter.grad.abs().max()))


def test_a_model_that_lets_packed_sequences_see_each_other_is_found_out(student, monkeypatch):
    model = student.model
    real = model.forward

    def leaky(input_ids, position_ids=None, **rest):
        return real(input_ids, position_ids=position_ids, attention_mask=torch.ones_like(input_ids), **rest)

    assert packs_sequences(model)
    monkeypatch.setattr(model, "forward", leaky)
    assert not packs_sequences(model)


def test_padding_and_prompts_do_not_reach_the_loss(student):
    """P02: other padding, other logits at prompt positions: the same targets."""
    given_items = items(30, 12, 18)
    for packing in (True, False):
        first = packed_logits(student.model, pack({"x": given_items}, pad=0, packing=packing))
        second = packed_logits(student.model, pack({"x": given_items}, pad=7, packing=packing))
        assert torch.equal(first, second)


@given(st.lists(st.lists(st.integers(2, 30), min_size=1, max_size=12), min_size=1, max_size=3), st.booleans())
def test_packing_loses_and_invents_nothing(sizes, packing):
    groups = {f"g{number}": items(*group, start=1) for number, group in enumerate(sizes)}
    batch = pack(groups, pad=99, packing=packing)
    assert batch.tokens == sum(map(sum, sizes)) == np.count_nonzero(batch.ids_RC != 99)
    assert batch.target_RC.sum() == len(batch.target_ids_N)
    for name, group in groups.items():
        assert sorted(item.index for item in batch.items[name]) == list(range(len(group)))
        wanted = np.concatenate([item.ids[item.start :] for item in batch.items[name]])
        assert np.array_equal(batch.target_ids_N[batch.parts[name]], wanted)
        rows = batch.rows[name]
        following_RC = np.roll(batch.ids_RC[rows], -1, axis=1)
        assert np.array_equal(following_RC[batch.target_RC[rows]], wanted)
    assert batch.ids_RC.shape[1] == max(map(max, sizes))


def test_packing_fills_rows():
    batch = pack({"x": items(40, 20, 20, 10, 30)}, pad=0)
    assert batch.ids_RC.shape == (3, 40)
    assert not pack({"x": items(5, 5)}, pad=0, packing=False).shared


def test_stored_beliefs_lie_in_the_order_of_the_batch(student, teacher, tools):
    believed = [tools.believe(e, teacher, k=3 + n) for n, e in enumerate(tools.examples(4))]
    branch = rendered("x", believed, student.tokenizer, max_length=None)
    batch = pack({"x": [item for i in range(4) for item in branch.items(i)]}, pad=0)
    ids_NK, logprobs_NK = stored_beliefs(branch, batch.items["x"])
    assert ids_NK.shape == (len(batch.target_ids_N), 6)
    with torch.no_grad():
        teacher_NV = torch.log_softmax(packed_logits(teacher.model, batch), -1).numpy()
    at = 0
    for item in batch.items["x"]:
        kept = 3 + item.index
        part = slice(at, at + item.targets)
        assert (ids_NK[part, kept:] == -1).all()
        told = np.take_along_axis(teacher_NV[part], ids_NK[part, :kept], -1)
        assert np.allclose(told, logprobs_NK[part, :kept], atol=1e-4)
        at += item.targets


def test_equal_records_are_two_and_order_depends_on_seed_and_content_alone(student, tools):
    examples = tools.examples(9)
    branch = rendered("x", [*examples, examples[0]], student.tokenizer, max_length=None)
    assert len(set(branch.keys)) == 10
    shuffled = rendered("y", [examples[0], *reversed(examples)], student.tokenizer, max_length=None)
    first, second = branch.order(3, 1), shuffled.order(3, 1)
    assert [branch.keys[i] for i in first] == [shuffled.keys[i] for i in second]
    assert list(branch.order(3, 2)) != list(first)
    assert list(branch.order(4, 1)) != list(first)


def test_one_text_in_several_forms_comes_in_one_order(student, teacher, tools):
    texts = [Example(content_id(text), (), text) for text in ("one hat", "two hats", "three hats", "no hat", "my hat")]
    believed = [tools.believe(text, teacher, k=3) for text in texts]
    stored = [text.signalled("a store", text.id, teacher="somebody") for text in reversed(texts)]
    orders = []
    for records in (texts, believed, stored):
        branch = rendered("x", records, student.tokenizer, max_length=None)
        orders.append([branch.record(int(place)).response for place in branch.order(3, 1)])
    assert orders[0] == orders[1] == orders[2] != [text.response for text in texts]
