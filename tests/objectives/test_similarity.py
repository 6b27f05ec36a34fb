"""Survey 4.3 and Table 2: G15 and hand-computed distances of inner states."""

import math

import pytest
import torch
from torch import nn, tensor

from stillhouse.errors import RecipeError
from stillhouse.objectives import similarity

F64 = torch.float64
POSITIONAL = [similarity.l1, similarity.l2, similarity.cosine, similarity.cross_entropy]
SETS = [similarity.mmd, similarity.cka]


def array(*rows):
    return tensor(rows, dtype=F64)


def states(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


ONE = torch.ones(1, dtype=F64)
STUDENT, TEACHER = array([3.0, 4.0]), array([1.0, 0.0])


def test_by_hand():
    assert similarity.l2(STUDENT, TEACHER, ONE).item() == pytest.approx((4 + 16) / 2, rel=1e-12)
    assert similarity.l1(STUDENT, TEACHER, ONE).item() == pytest.approx((2 + 4) / 2, rel=1e-12)
    assert similarity.cosine(STUDENT, TEACHER, ONE).item() == pytest.approx(1 - 3 / 5, rel=1e-9)


def test_normalised_by_hand():
    """Root mean squares 5 / sqrt 2 and 1 / sqrt 2: (0.6, 0.8) and (1, 0), each times sqrt 2."""
    assert similarity.l2(STUDENT, TEACHER, ONE, normalise=True).item() == pytest.approx(0.16 + 0.64, rel=1e-9)


def test_cross_entropy_by_hand():
    """Softmax of log-probabilities: the teacher (.5, .3, .2) coded by the student (.2, .5, .3)."""
    p, q = array([0.5, 0.3, 0.2]), array([0.2, 0.5, 0.3])
    by_hand = -(0.5 * math.log(0.2) + 0.3 * math.log(0.5) + 0.2 * math.log(0.3))
    assert similarity.cross_entropy(q.log(), p.log(), ONE).item() == pytest.approx(by_hand, rel=1e-12)


def test_mmd_golden_g15():
    student, teacher = array([0.0], [1.0]), array([0.0], [2.0])
    loss = similarity.mmd(student, teacher, torch.ones(2), bandwidths=[1.0])
    assert loss.item() == pytest.approx(0.1967346701436834, rel=1e-12)


def test_mmd_is_blind_to_order_and_zero_for_equal_sets():
    student = states(6, 3)
    assert similarity.mmd(student, student.flip(0), torch.ones(6)).item() == pytest.approx(0.0, abs=1e-12)
    assert similarity.mmd(student, student + 1.0, torch.ones(6)).item() > 0.05


def test_mmd_of_sets_of_different_size():
    """{0} against {0, 1}: 1 + (1 + e) / 2 - (1 + e) = (1 - e) / 2 with e = exp(-1/2)."""
    value = similarity.gaussian_mmd(array([0.0]), array([0.0], [1.0]), [1.0]).item()
    assert value == pytest.approx((1 - math.exp(-0.5)) / 2, rel=1e-12)


def test_cka_sees_through_rotation_and_scale():
    teacher = states(40, 4)
    rotation = torch.linalg.qr(states(4, 4, seed=1)).Q
    assert similarity.cka(3.0 * teacher @ rotation + 2.0, teacher, torch.ones(40)).item() == pytest.approx(0, abs=1e-9)


def test_cka_by_hand():
    """Centred x = (-1, 0, 1), y = (1, -2, 1): uncorrelated; and x against itself plus y: (2 * 2 / (2 * |G|))."""
    x, y = array([-1.0], [0.0], [1.0]), array([1.0], [-2.0], [1.0])
    assert similarity.cka(x, y, torch.ones(3)).item() == pytest.approx(1.0, rel=1e-12)
    both = torch.cat([x, y], -1)  # Gram matrix of dimensions: diag(2, 6)
    assert similarity.cka(both, x, torch.ones(3)).item() == pytest.approx(1 - 4 / (2 * math.sqrt(40)), rel=1e-12)


def test_cka_of_random_states_of_other_width():
    value = similarity.cka(states(400, 5), states(400, 7, seed=1), torch.ones(400)).item()
    assert 0.9 < value < 1.0


def test_attention_relations_by_hand():
    """Two positions of width 1: relations of (1, 0) are softmax(1, 0) and softmax(0, 0)."""
    student, teacher = array([[0.0], [0.0]]), array([[1.0], [0.0]])
    s = 1 / (1 + math.exp(-1))
    kl = s * math.log(2 * s) + (1 - s) * math.log(2 * (1 - s))
    loss = similarity.attention_relations(student.view(1, 2, 1), teacher.view(1, 2, 1), array([2.0, 1.0]))
    assert loss.item() == pytest.approx(2 * kl, rel=1e-12)


def test_attention_relations_take_any_width_and_leave_out_padding():
    student, teacher = states(2, 5, 4), states(2, 5, 6, seed=1)
    weight = array([1.0, 1, 1, 0, 0], [1.0, 1, 1, 1, 1])
    loss = similarity.attention_relations(student, teacher, weight, heads=2)
    student[0, 3:], teacher[0, 3:] = 50.0, -7.0
    assert similarity.attention_relations(student, teacher, weight, heads=2).item() == pytest.approx(loss.item())
    short = similarity.attention_relations(student[:1, :3], teacher[:1, :3], weight[:1, :3], heads=2)
    rest = similarity.attention_relations(student[1:], teacher[1:], weight[1:], heads=2)
    assert loss.item() == pytest.approx((short + rest).item(), rel=1e-12)
    with pytest.raises(RecipeError, match="3 relation heads do not divide a width of 4"):
        similarity.attention_relations(student, teacher, weight, heads=3)


@pytest.mark.parametrize("function", [*POSITIONAL, *SETS])
def test_equal_states_have_no_gradient_but_cross_entropys(function):
    student = states(30, 4).requires_grad_()
    function(student, student.detach().clone(), torch.ones(30, dtype=F64)).backward()
    assert student.grad.abs().max() < 1e-8


@pytest.mark.parametrize("function", [*POSITIONAL, *SETS])
def test_masked_positions_may_hold_anything_and_the_teacher_is_constant(function):
    student, teacher = states(30, 4).requires_grad_(), states(30, 4, seed=1).requires_grad_()
    weight = torch.ones(30, dtype=F64)
    weight[::3] = 0
    loss = function(student, teacher, weight)
    loss.backward()
    assert teacher.grad is None
    assert (student.grad[::3] == 0).all()
    dirty_student, dirty_teacher = student.detach().clone(), teacher.detach().clone()
    dirty_student[::3], dirty_teacher[::3] = math.nan, math.inf
    assert function(dirty_student, dirty_teacher, weight).item() == loss.item()


@pytest.mark.parametrize("function", [*POSITIONAL, *SETS, similarity.attention_relations])
def test_empty_mask(function):
    """P31."""
    shape = (2, 3, 4) if function is similarity.attention_relations else (6, 4)
    student = states(*shape).requires_grad_()
    loss = function(student, states(*shape, seed=1), torch.zeros(shape[:-1], dtype=F64))
    loss.backward()
    assert loss.item() == 0.0
    assert (student.grad == 0).all()


@pytest.mark.parametrize("function", POSITIONAL)
def test_sum_over_positions(function):
    student, teacher, weight = states(2, 3, 4), states(2, 3, 4, seed=1), torch.rand(2, 3, dtype=F64)
    apart = sum(function(student[b, t], teacher[b, t], weight[b, t]) for b in range(2) for t in range(3))
    assert function(student, teacher, weight).item() == pytest.approx(apart.item(), rel=1e-12)


@pytest.mark.parametrize("function", [*POSITIONAL, *SETS])
def test_gradcheck(function):
    teacher, weight = states(5, 3, seed=1), torch.ones(5, dtype=F64)
    assert torch.autograd.gradcheck(lambda s: function(s, teacher, weight), (states(5, 3).requires_grad_(),))


def test_half_precision_is_compared_in_float32():
    student, teacher = states(50, 8).bfloat16(), states(50, 8, seed=1).bfloat16()
    loss = similarity.l2(student, teacher, torch.ones(50))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        similarity.l2(student.double(), teacher.double(), torch.ones(50)).item(), rel=1e-5
    )


def test_different_widths_are_refused():
    with pytest.raises(RecipeError, match=r"similarity\.projected"):
        similarity.l2(states(3, 4), states(3, 6), torch.ones(3))


def test_projected_learns_a_map_between_widths():
    """R29 (TED), Eq. 11: the map is a parameter, reaches any linear image, and the distance behind it may be any."""
    torch.manual_seed(0)
    student = states(64, 4).float()
    teacher = student @ states(4, 6, seed=2).float()
    objective = similarity.projected(student_width=4, teacher_width=6, distance=similarity.l2)
    assert isinstance(objective, nn.Module)
    assert [parameter.shape for parameter in objective.parameters()] == [(6, 4)]
    optimiser, weight = torch.optim.Adam(objective.parameters(), lr=0.1), torch.full((64,), 1 / 64)
    first = objective(student, teacher, weight).item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = objective(student, teacher, weight)
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-3 * first
    cosine = similarity.projected(student_width=4, teacher_width=6, distance=similarity.cosine)
    assert 0 < cosine(student, teacher, weight).item() < 2
