"""Survey 4.1: cross-entropy as a sum over what counts."""

import pytest
import torch
from torch import tensor
from torch.nn import functional

from stillhouse.objectives.supervised import cross_entropy, edited, figa

F64 = torch.float64


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_equals_torch_with_weights():
    student, target = logits(5, 7).requires_grad_(), tensor([3, 0, -100, 6, 3])
    weight = tensor([1.0, 0.5, 0.0, 2.0, 1.0], dtype=F64)
    loss = cross_entropy(student, target, weight)
    (gradient,) = torch.autograd.grad(loss, student)
    expected = (weight * functional.cross_entropy(student, target, reduction="none", ignore_index=-100)).sum()
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient)


def test_by_hand():
    """-log 0.5 - 2 log 0.2 with weights 1 and 2."""
    student = tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], dtype=F64).log()
    loss = cross_entropy(student, tensor([0, 2]), tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx(0.6931471805599453 + 2 * 1.6094379124341003, rel=1e-12)


def test_prompt_labels_do_not_matter():
    """Survey 11.3: changing the labels of prompt tokens never changes the loss."""
    student, weight = logits(2, 4, 6), tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    target = torch.randint(0, 6, (2, 4), generator=torch.Generator().manual_seed(1))
    loss = cross_entropy(student, target, weight)
    for value in (0, 5, -100):
        assert cross_entropy(student, torch.where(weight == 0, value, target), weight) == loss


def test_negative_weight_pushes_away():
    student = logits(1, 4).requires_grad_()
    cross_entropy(student, tensor([2]), tensor([-1.0])).backward()
    assert student.grad[0, 2] > 0


def test_empty_mask():
    """P31."""
    student = logits(3, 4).requires_grad_()
    loss = cross_entropy(student, tensor([-100, -100, -100]), torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


def test_ignored_label_at_a_counted_position_is_an_error():
    with pytest.raises((IndexError, RuntimeError)):
        cross_entropy(logits(1, 4), tensor([-100]), torch.ones(1))


def test_half_precision_is_summed_in_float32():
    student = logits(300, 50).bfloat16()
    loss = cross_entropy(student, torch.zeros(300, dtype=torch.long), torch.ones(300))
    expected = functional.cross_entropy(student.double(), torch.zeros(300, dtype=torch.long), reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_figa_by_hand():
    """Losses 1, 0.5, 0.7 of a new token and two removed ones at half the weight: the last is not confident enough."""
    student = tensor([-1.0, -0.5, -0.7, float("nan")], dtype=F64).requires_grad_()
    edit, weight = tensor([1.0, -1.0, -1.0, 0.0]), tensor([1.0, 1.0, 1.0, 0.0], dtype=F64)
    loss = figa(student, edit, weight, removed_weight=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(1.0 - 0.25, rel=1e-12)
    assert student.grad.tolist() == [-1.0, 0.5, 0.0, 0.0]


def test_edited_by_hand():
    """R42: a new token counts once, a kept one half, a removed one not at all."""
    student = tensor([-1.0, -0.5, -0.7, float("nan")], dtype=F64).requires_grad_()
    loss = edited(student, tensor([1.0, 0.0, -1.0, 1.0]), tensor([1.0, 2.0, 1.0, 0.0], dtype=F64))
    loss.backward()
    assert loss.item() == pytest.approx(1.0 + 2 * 0.5 * 0.5, rel=1e-12)
    assert student.grad.tolist() == [-1.0, -1.0, 0.0, 0.0]
