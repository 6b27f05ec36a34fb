"""Survey 4.9 and 11: golden values G10-G13, properties, hand-computed cases."""

import math

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives import ranking
from stillhouse.objectives.divergence import skew_forward_kl, skew_reverse_kl

F64 = torch.float64
PAIR = tensor([0, 0])
ONE = torch.ones(1, dtype=F64)


def array(*values):
    return tensor(values, dtype=F64)


def softplus(x):
    return math.log1p(math.exp(x))


# Golden responses: log-probabilities of length-1 responses that the rewards order 1 > 2 > 3.
P3, R3, G3, L3 = array(-1.0, -0.8, -1.5), array(3.0, 2.0, 1.0), tensor([0, 0, 0]), torch.ones(3, dtype=F64)


def test_dpo_golden_g10():
    loss = ranking.dpo(array(-10.0, -12.0), array(-11.0, -11.5), array(1.0, 0.0), PAIR, ONE, beta=0.1)
    assert loss.item() == pytest.approx(0.620957047789532, rel=1e-12)


def test_dpo_is_log_2_at_the_reference():
    """Survey 11.3; and so is SPIN, the same with the gold response above the student's own."""
    same = array(-3.0, -7.0)
    assert ranking.dpo(same, same, array(1.0, 0.0), PAIR, ONE).item() == pytest.approx(math.log(2), rel=1e-12)


def test_dpo_raises_the_better_and_lowers_the_worse():
    student = array(-5.0, -4.0).requires_grad_()
    ranking.dpo(student, array(-5.0, -4.0), array(0.2, 0.9), PAIR, ONE, beta=0.5).backward()
    torch.testing.assert_close(student.grad, array(0.25, -0.25))


def test_dpo_label_smoothing_mixes_both_directions():
    args = (array(-10.0, -12.0), array(-11.0, -11.5))
    right = ranking.dpo(*args, array(1.0, 0.0), PAIR, ONE).item()
    wrong = ranking.dpo(*args, array(0.0, 1.0), PAIR, ONE).item()
    smooth = ranking.dpo(*args, array(1.0, 0.0), PAIR, ONE, label_smoothing=0.2).item()
    assert smooth == pytest.approx(0.8 * right + 0.2 * wrong, rel=1e-12)
    with pytest.raises(RecipeError, match=r"label_smoothing 0\.5"):
        ranking.dpo(*args, array(1.0, 0.0), PAIR, ONE, label_smoothing=0.5)


def test_ipo_and_hinge_by_hand():
    """The gap of log-ratios is 1.5: (1.5 - 5)^2 and 1 - 0.15 at beta 0.1; 1 - 1.5 is past the hinge at beta 1."""
    args = (array(-10.0, -12.0), array(-11.0, -11.5), array(1.0, 0.0), PAIR, ONE)
    assert ranking.ipo(*args, beta=0.1).item() == pytest.approx(12.25, rel=1e-12)
    assert ranking.hinge(*args, beta=0.1).item() == pytest.approx(0.85, rel=1e-12)
    assert ranking.hinge(*args, beta=1.0).item() == 0.0


def test_simpo_by_hand():
    """Mean log-probabilities -2 and -1: beta 2 times -1 minus margin 1 is -3."""
    loss = ranking.simpo(array(-10.0, -3.0), array(5.0, 3.0), array(1.0, 0.0), PAIR, ONE, beta=2.0, margin=1.0)
    assert loss.item() == pytest.approx(softplus(3.0), rel=1e-12)


def test_kto_by_hand():
    """Reference point 0.5 from the mismatched; a desirable ratio of 1.5 and an undesirable one of -0.5."""
    loss = ranking.kto(
        array(-1.0, -3.0),
        array(-2.5, -2.5),
        array(-4.0, -4.0),
        array(-5.0, -4.0),
        array(1.0, 0.0),
        array(1.0, 1.0),
        beta=1.0,
        undesirable_weight=2.0,
    )
    sigmoid = 1 / (1 + math.exp(1.0))
    assert loss.item() == pytest.approx(sigmoid + 2.0 * sigmoid, rel=1e-12)


def test_kto_point_is_not_negative_and_has_no_gradient():
    mismatched = array(-9.0, -9.0).requires_grad_()
    student = array(-1.0, -3.0).requires_grad_()
    loss = ranking.kto(student, array(-1.0, -3.0), mismatched, array(-5.0, -5.0), array(1.0, 0.0), array(1.0, 1.0))
    loss.backward()
    assert loss.item() == pytest.approx(1.0, rel=1e-12)
    assert mismatched.grad is None
    assert student.grad[0] < 0 < student.grad[1]


def test_rrhf_golden_g11():
    assert ranking.rrhf(P3, L3, R3, G3, ONE).item() == pytest.approx(0.2, rel=1e-12)


def test_rrhf_is_zero_in_the_order_of_the_rewards():
    """Survey 11.3."""
    assert ranking.rrhf(array(-0.5, -0.8, -1.5), L3, R3, G3, ONE).item() == 0.0


def test_rrhf_length_penalty_and_best_response():
    """Sums -4 and -3 of 4 and 2 tokens: by mean the order is right, by sum it is wrong by 1; the best costs 1 per token."""
    args = (array(-4.0, -3.0), array(4.0, 2.0), array(1.0, 0.0), PAIR, ONE)
    assert ranking.rrhf(*args).item() == 0.0
    assert ranking.rrhf(*args, length_penalty=0.0).item() == pytest.approx(1.0, rel=1e-12)
    assert ranking.rrhf(*args, length_penalty=0.0, best_weight=0.01).item() == pytest.approx(1.01, rel=1e-12)


def test_pro_golden_g12_g13():
    assert ranking.pro(P3, L3, R3, G3, ONE).item() == pytest.approx(1.4427322527504027, rel=1e-12)
    assert ranking.pro_weighted(P3, L3, R3, G3, ONE).item() == pytest.approx(1.9481913255429711, rel=1e-12)


def test_pro_of_two_is_softplus():
    """Survey 11.3: softplus(p2 - p1); the rewards' gap of 2 multiplies both in the weighted form."""
    args = (array(-1.3, -0.4), torch.ones(2, dtype=F64), array(5.0, 3.0), PAIR, ONE)
    assert ranking.pro(*args).item() == pytest.approx(softplus(0.9), rel=1e-12)
    assert ranking.pro_weighted(*args).item() == pytest.approx(softplus(1.8), rel=1e-12)


def test_pro_imitation_term():
    extra = ranking.pro(P3, L3, R3, G3, ONE, best_weight=0.5) - ranking.pro(P3, L3, R3, G3, ONE)
    assert extra.item() == pytest.approx(0.5 * (3 - 1) ** 2 * 1.0, rel=1e-12)


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_stable_alignment_by_hand(aggregate):
    """CE 1.0, 0.8, 1.5 with ratings 6, 4, 2 of a scale of 6: gaps 0.2 + 1.8 * 2/6 = 0.8 and -0.5 + 1.8 * 4/6 = 0.7."""
    loss = ranking.stable_alignment(
        P3, L3, array(6.0, 4.0, 2.0), G3, ONE, ratio=0.5, margin=1.8, scale=6.0, aggregate=aggregate
    )
    expected = {"mean": (0.8 + 0.7) / 2, "max": 0.8}[aggregate]
    assert loss.item() == pytest.approx(1.0 + 0.5 * expected, rel=1e-12)


def test_stable_alignment_leaves_clear_gaps_alone():
    loss = ranking.stable_alignment(
        array(-1.0, -9.0), torch.ones(2, dtype=F64), array(2.0, 1.0), PAIR, ONE, ratio=1.0, margin=1.0, scale=1.0
    )
    assert loss.item() == pytest.approx(1.0, rel=1e-12)


def test_knowpat_by_hand():
    """R45 (KnowPAT): Weights (s - min) / (max - min) of -1, -0.8, -1.5: 5/7 and 1; the last response has no stage."""
    first = 5 / 7 * (softplus(1.0) + (softplus(-0.8) + softplus(-1.5)) / 2)
    second = softplus(0.8) + softplus(-1.5)
    assert ranking.knowpat(P3, L3, R3, G3, ONE).item() == pytest.approx(first + second, rel=1e-12)


def test_knowpat_weights_have_no_gradient():
    p = P3.clone().requires_grad_()
    ranking.knowpat(p, L3, R3, G3, ONE).backward()
    sigmoid = torch.sigmoid(P3)
    by_hand = array(
        -5 / 7 * (1 - sigmoid[0]),
        5 / 14 * sigmoid[1] - (1 - sigmoid[1]),
        5 / 14 * sigmoid[2] + sigmoid[2],
    )
    torch.testing.assert_close(p.grad, by_hand)


def test_contrastive_uses_each_divergence_on_its_side():
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4, 6, generator=g, dtype=F64), torch.randn(4, 6, generator=g, dtype=F64)
    own, weight = tensor([False, True, True, False]), torch.ones(4, dtype=F64)
    loss = ranking.contrastive(student, Dense(teacher), own, weight, skew=0.2)
    taught = skew_forward_kl(student[~own], Dense(teacher[~own]), weight[:2], skew=0.2)
    pushed = skew_reverse_kl(student[own], Dense(teacher[own]), weight[:2], skew=0.2)
    assert loss.item() == pytest.approx((0.5 * (taught + pushed)).item(), rel=1e-12)


def test_ranknet_by_hand():
    """Student scores 0.5, 1.5 in the wrong order and a third far below: the mean of three pairs."""
    loss = ranking.ranknet(array(0.5, 1.5, -2.0), R3, G3, ONE)
    expected = (softplus(1.0) + softplus(-2.5) + softplus(-3.5)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_listnet_is_the_kl_of_two_softmaxes():
    """G01 in a list: teacher p = (.5, .3, .2), student q = (.2, .5, .3), whatever constant is added to either."""
    p, q = array(0.5, 0.3, 0.2).log(), array(0.2, 0.5, 0.3).log()
    assert ranking.listnet(q + 3.0, p - 1.0, G3, ONE).item() == pytest.approx(0.22380465718564752, rel=1e-12)


def test_lambdaloss_by_hand():
    """Grades 2, 0 ranked the wrong way: gains 3, 0; discounts 1/log2(3), 1; ideal DCG 3."""
    loss = ranking.lambdaloss(array(0.0, 1.0), array(2.0, 0.0), PAIR, ONE)
    expected = 3 * (1 - 1 / math.log2(3)) / 3 * softplus(1.0)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_lambdaloss_cares_most_about_the_top():
    """The same gap of grades costs less when the pair lies further down."""
    scores = array(3.0, 2.0, 1.0, 0.0)
    top = ranking.lambdaloss(array(2.0, 3.0, 1.0, 0.0), array(1.0, 1.0, 0.0, 0.0), tensor([0] * 4), ONE)
    student = scores.clone().requires_grad_()
    ranking.lambdaloss(student, array(0.0, 1.0, 0.0, 1.0), tensor([0] * 4), ONE).backward()
    assert top.item() > 0
    assert student.grad[0].abs() > student.grad[2].abs()


GROUPED = {
    "dpo": lambda lp, s, g, w: ranking.dpo(lp, lp.detach() * 0.5 - 1.0, s, g, w),
    "ipo": lambda lp, s, g, w: ranking.ipo(lp, lp.detach() * 0.5 - 1.0, s, g, w),
    "hinge": lambda lp, s, g, w: ranking.hinge(lp, lp.detach() * 0.5 - 1.0, s, g, w),
    "simpo": lambda lp, s, g, w: ranking.simpo(lp, torch.full_like(lp, 2.0), s, g, w),
    "rrhf": lambda lp, s, g, w: ranking.rrhf(lp, torch.full_like(lp, 2.0), s, g, w, best_weight=0.1),
    "pro": lambda lp, s, g, w: ranking.pro(lp, torch.full_like(lp, 2.0), s, g, w, best_weight=0.1),
    "pro_weighted": lambda lp, s, g, w: ranking.pro_weighted(lp, torch.full_like(lp, 2.0), s, g, w, best_weight=0.1),
    "stable_alignment": lambda lp, s, g, w: ranking.stable_alignment(
        lp, torch.full_like(lp, 2.0), s, g, w, ratio=1.0, margin=1.0, scale=1.0
    ),
    "stable_alignment_max": lambda lp, s, g, w: ranking.stable_alignment(
        lp, torch.full_like(lp, 2.0), s, g, w, ratio=1.0, margin=1.0, scale=1.0, aggregate="max"
    ),
    "knowpat": lambda lp, s, g, w: ranking.knowpat(lp, torch.full_like(lp, 2.0), s, g, w),
    "ranknet": ranking.ranknet,
    "listnet": ranking.listnet,
    "lambdaloss": ranking.lambdaloss,
}


@pytest.mark.parametrize("name", GROUPED)
def test_groups_of_any_size_are_independent(name):
    """T16: a batch of ragged groups in any order is the weighted sum of its groups, in value and gradient."""
    loss = GROUPED[name]
    values = array(-1.0, -0.8, -1.5, -2.0, -0.1, -0.7, -3.0, -1.2)
    scores = array(1.0, 3.0, 2.0, 0.5, 0.1, 0.9, 4.0, 3.5)
    group = tensor([2, 0, 0, 2, 3, 0, 2, 2])  # sizes 3, 0, 4, 1
    weight = array(0.7, 5.0, 2.0, 1.0)
    together = values.clone().requires_grad_()
    total = loss(together, scores, group, weight)
    total.backward()
    apart, expected = values.clone().requires_grad_(), 0.0
    for g in (0, 2, 3):
        rows = group == g
        expected = expected + weight[g] * loss(
            apart[rows], scores[rows], torch.zeros(rows.sum(), dtype=torch.long), ONE
        )
    expected.backward()
    assert total.item() == pytest.approx(expected.item(), rel=1e-10)
    torch.testing.assert_close(together.grad, apart.grad, rtol=1e-9, atol=1e-12)
    assert torch.isfinite(together.grad).all()
    silent = values.clone().requires_grad_()
    nothing = loss(silent, scores, group, torch.zeros(4, dtype=F64))
    nothing.backward()
    assert nothing.item() == 0.0
    assert (silent.grad == 0).all()


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge", "simpo", "rrhf", "pro", "pro_weighted", "ranknet", "listnet"])
def test_gradcheck(name):
    values = array(-1.0, -0.8, -1.5, -2.0, -0.1).requires_grad_()
    scores, group, weight = array(1.0, 3.0, 2.0, 0.5, 0.1), tensor([0, 0, 0, 1, 1]), array(1.0, 0.5)
    if name in ("dpo", "ipo", "hinge"):
        reference = array(-1.1, -0.9, -1.2, -2.5, -0.3)
        function = getattr(ranking, name)
        assert torch.autograd.gradcheck(lambda v: function(v, reference, scores, group, weight), (values,))
    else:
        assert torch.autograd.gradcheck(lambda v: GROUPED[name](v, scores, group, weight), (values,))


def test_equal_scores_are_no_pair():
    student = array(-1.0, -2.0).requires_grad_()
    loss = ranking.dpo(student, array(-1.5, -1.5), array(1.0, 1.0), PAIR, ONE)
    loss.backward()
    assert loss.item() == 0.0
    assert (student.grad == 0).all()


@pytest.mark.parametrize(("name", "loss_type", "beta"), [("dpo", "sigmoid", 0.3), ("hinge", "hinge", 0.3)])
def test_against_a_direct_formula(name, loss_type, beta):
    """A batch of pairs against the textbook form computed pair by pair."""
    g = torch.Generator().manual_seed(3)
    student, reference = (-torch.rand(8, generator=g, dtype=F64) * 10 for _ in range(2))
    scores, group = array(1, 0, 0, 1, 1, 0, 0, 1), tensor([0, 0, 1, 1, 2, 2, 3, 3])
    got = getattr(ranking, name)(student, reference, scores, group, torch.ones(4, dtype=F64), beta=beta).item()
    expected = 0.0
    for w, l in [(0, 1), (3, 2), (4, 5), (7, 6)]:
        d = beta * ((student[w] - reference[w]) - (student[l] - reference[l])).item()
        expected += softplus(-d) if loss_type == "sigmoid" else max(0.0, 1 - d)
    assert got == pytest.approx(expected, rel=1e-12)
