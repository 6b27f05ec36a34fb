"""Survey 4.6: weak-to-strong targets."""

import math

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives.weak_to_strong import confidence, product_of_experts
from stillhouse.testing.formulas import loss_and_gradient

F64 = torch.float64


def rows(*values):
    return tensor(values, dtype=F64).log()


def test_confidence_by_hand():
    """O7: Target 0.75 weak + 0.25 of the student's own choice, the second of three."""
    student, weak = rows([0.2, 0.5, 0.3]), rows([0.6, 0.3, 0.1])
    loss, gradient = loss_and_gradient(confidence, student, Dense(weak), torch.ones(1), student_share=0.25)
    target = [0.45, 0.225 + 0.25, 0.075]
    by_hand = -sum(t * math.log(q) for t, q in zip(target, [0.2, 0.5, 0.3], strict=True))
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)
    torch.testing.assert_close(gradient, tensor([[0.2, 0.5, 0.3]], dtype=F64) - tensor([target], dtype=F64))


def test_two_classes_keep_the_weak_teachers_balance():
    """The teacher gives half its mass to class 1: the two students most for it are hardened to 1, even below 1/2."""
    student = rows([0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4])
    weak = rows([0.2, 0.8], [0.8, 0.2], [0.2, 0.8], [0.8, 0.2])
    _, gradient = loss_and_gradient(confidence, student, Dense(weak), torch.ones(4, dtype=F64), student_share=1.0)
    target = tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=F64)
    torch.testing.assert_close(gradient, student.exp() - target)


def test_share_of_nothing_is_cross_entropy_with_the_weak_teacher():
    student, weak, weight = torch.randn(4, 6, dtype=F64), torch.randn(4, 6, dtype=F64), torch.rand(4, dtype=F64)
    got = loss_and_gradient(confidence, student, Dense(weak), weight, student_share=0.0)
    expected = loss_and_gradient(lambda z: -(weight * (weak.softmax(-1) * z.log_softmax(-1)).sum(-1)).sum(), student)
    torch.testing.assert_close(got, expected)


def test_product_of_experts_by_hand():
    """(.6, .4) times (.2, .8) is (.12, .32), normalised (3/11, 8/11); the target is a constant."""
    student, weak = rows([0.2, 0.8]), rows([0.6, 0.4])
    loss, gradient = loss_and_gradient(product_of_experts, student, Dense(weak), torch.ones(1))
    assert loss.item() == pytest.approx(-(3 / 11 * math.log(0.2) + 8 / 11 * math.log(0.8)), rel=1e-12)
    torch.testing.assert_close(gradient, tensor([[0.2 - 3 / 11, 0.8 - 8 / 11]], dtype=F64))


def test_product_powers():
    """With a student's power of 0 and a teacher's of 2 the target is the teacher squared."""
    student, weak = rows([0.2, 0.8]), rows([0.6, 0.4])
    _, gradient = loss_and_gradient(
        product_of_experts, student, Dense(weak), torch.ones(1), teacher_power=2.0, student_power=0.0
    )
    torch.testing.assert_close(gradient, tensor([[0.2 - 0.36 / 0.52, 0.8 - 0.16 / 0.52]], dtype=F64))


@pytest.mark.parametrize("function", [confidence, product_of_experts])
def test_empty_mask(function):
    """P31."""
    for width in (2, 5):
        loss, gradient = loss_and_gradient(
            function, torch.zeros(3, width), Dense(torch.zeros(3, width)), torch.zeros(3)
        )
        assert loss.item() == 0.0
        assert (gradient == 0).all()


def test_share_out_of_range():
    with pytest.raises(RecipeError, match=r"student_share 1\.5"):
        confidence(torch.zeros(1, 3), Dense(torch.zeros(1, 3)), torch.ones(1), student_share=1.5)
