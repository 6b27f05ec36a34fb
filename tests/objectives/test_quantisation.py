"""R31: QuantGPT's contrast between tokens and TSLD's scales, by hand in float64."""

import math

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives import quantisation
from stillhouse.objectives.divergence import forward_kl

F64 = torch.float64
SEQUENCE = tensor([0, 0, 0, 1, 1])
MADE = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(5, 4, generator=MADE, dtype=F64) for _ in range(2))


def test_tsld_scales_by_hand():
    """R31 (TSLD): probabilities .5, .25 and a masked one give surprises 2 and 4 of 6, times two counted tokens."""
    told = tensor([0.5, 0.25, 0.01, 0.125, 0.125], dtype=F64).log()
    weight = tensor([1.0, 1.0, 0.0, 1.0, 3.0], dtype=F64)
    got = quantisation.token_scaled(STUDENT, Dense(TEACHER), told, SEQUENCE, weight, sharpness=1.0)
    scaled = tensor([2 * 2 / 6, 2 * 4 / 6, 0.0, 1.0, 3.0], dtype=F64)
    assert got.item() == pytest.approx(forward_kl(STUDENT, Dense(TEACHER), scaled).item(), rel=1e-12)
    plain = quantisation.token_scaled(STUDENT, Dense(TEACHER), told, SEQUENCE, weight, sharpness=0.0)
    assert plain.item() == pytest.approx(forward_kl(STUDENT, Dense(TEACHER), weight).item(), rel=1e-12)
    assert quantisation.token_scaled(STUDENT, Dense(TEACHER), told, SEQUENCE, weight * 0).item() == 0.0


def test_quantgpt_contrast_by_hand():
    """R31 (QuantGPT): two tokens of one sequence at right angles; the third is masked, the fourth has no other token."""
    student = tensor([[2.0, 0.0], [0.0, 1.0], [9.0, 9.0], [1.0, 1.0]], dtype=F64, requires_grad=True)
    teacher = tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    args = student, teacher, tensor([0, 0, 0, 1]), tensor([1.0, 2.0, 0.0, 1.0], dtype=F64)
    got = quantisation.token_contrastive(temperature=0.5)(*args)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(1.2)))  # cosines 1 and .6
    second = -math.log(math.exp(1.6) / (1 + math.exp(1.6)))  # 0 and .8
    assert got.item() == pytest.approx(first + 2 * second, rel=1e-12)
    got.backward()
    assert student.grad[2:].abs().sum() == 0
    assert torch.autograd.gradcheck(lambda s: quantisation.token_contrastive()(s, *args[1:]), student)
    with pytest.raises(RecipeError, match="widths 2 and 1 differ"):
        quantisation.token_contrastive()(student, teacher[:, :1], *args[2:])
    with pytest.raises(RecipeError, match="must be above 0"):
        quantisation.token_contrastive(temperature=0.0)


def test_quantgpt_remembers_negatives_by_hand():
    """R31 (QuantGPT): the newest three counted states of earlier steps, and none of the step's own other rows."""
    objective = quantisation.token_contrastive(teacher_width=2, temperature=0.5, memory=3).double()
    along, across = tensor([[1.0, 0.0]], dtype=F64), tensor([[0.0, 2.0]], dtype=F64)
    one, weight = tensor([0]), tensor([1.0], dtype=F64)
    objective.begin_step()
    assert objective(along, along, one, weight).item() == 0.0  # nothing to be told from
    assert objective(along, across, one, weight).item() == 0.0  # the row before belongs to this step
    objective.begin_step()
    wanted = -math.log(
        math.exp(2) / (math.exp(2) + math.exp(2) + 1)
    )  # itself, the same one earlier, one at right angles
    assert objective(along, along, one, weight).item() == pytest.approx(wanted, rel=1e-12)
    objective(across, across, one, weight)
    objective(across, across, one, weight * 0)  # masked: not kept
    objective.begin_step()
    assert objective.before_KH.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]  # the first is forgotten
    again = quantisation.token_contrastive(teacher_width=2, memory=3).double()
    again.load_state_dict(objective.state_dict())
    again.begin_step()
    assert torch.equal(again.before_KH, objective.before_KH)


def test_nothing_to_learn_from_is_zero():
    loss = quantisation.token_contrastive()(STUDENT, TEACHER, SEQUENCE, torch.zeros(5, dtype=F64))
    assert loss.item() == 0.0
