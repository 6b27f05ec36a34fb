"""Survey 4.7, 4.8 and 11: G09, estimators against exact gradients on small vocabularies (P21), advantages by hand."""

import math

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives import reinforcement
from stillhouse.objectives.divergence import forward_kl, reverse_kl

F64 = torch.float64
PAIR = tensor([0, 0])
ONE = torch.ones(1, dtype=F64)


def array(*values):
    return tensor(values, dtype=F64)


def softplus(x):
    return math.log1p(math.exp(x))


def five_tokens(seed):
    return torch.randn(1, 5, generator=torch.Generator().manual_seed(seed), dtype=F64)


def expectation(loss_of_logprobs, student, behaviour):
    """Exact expected loss and gradient over one sampled token: every token once, weighted by its probability."""
    student = student.clone().requires_grad_()
    logprobs = student.log_softmax(-1)[0]
    sampled_from = behaviour.log_softmax(-1)[0]
    loss = loss_of_logprobs(logprobs, sampled_from.detach(), sampled_from.exp().detach())
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient


def exact(function, student, teacher):
    student = student.clone().requires_grad_()
    loss = function(student, Dense(teacher), ONE)
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient


class TestBradleyTerry:
    def test_golden_g09(self):
        loss = reinforcement.bradley_terry(array(1.2, 0.4), array(1.0, 0.0), PAIR, ONE)
        assert loss.item() == pytest.approx(0.37110066594777763, rel=1e-12)

    def test_all_pairs_of_a_prompt_are_one_element(self):
        """K = 3: the mean of the three ordered pairs; ties are dropped."""
        scores = array(1.2, 0.4, -0.3)
        loss = reinforcement.bradley_terry(scores, array(3.0, 2.0, 1.0), tensor([0, 0, 0]), ONE)
        assert loss.item() == pytest.approx((softplus(-0.8) + softplus(-1.5) + softplus(-0.7)) / 3, rel=1e-12)
        tied = reinforcement.bradley_terry(scores, array(3.0, 1.0, 1.0), tensor([0, 0, 0]), ONE)
        assert tied.item() == pytest.approx((softplus(-0.8) + softplus(-1.5)) / 2, rel=1e-12)

    def test_centre(self):
        args = (array(1.2, 0.4), array(1.0, 0.0), PAIR, ONE)
        extra = reinforcement.bradley_terry(*args, centre=0.01) - reinforcement.bradley_terry(*args)
        assert extra.item() == pytest.approx(0.01 * 0.8**2, rel=1e-9)

    def test_soft_labels_by_hand(self):
        """R33: the judge says 0.7 to 0.3, in either order of the rows."""
        expected = 0.7 * softplus(-0.8) + 0.3 * softplus(0.8)
        loss = reinforcement.bradley_terry_soft(array(1.2, 0.4), array(0.7, 0.3), PAIR, ONE)
        assert loss.item() == pytest.approx(expected, rel=1e-12)
        loss = reinforcement.bradley_terry_soft(array(0.4, 1.2), array(0.3, 0.7), PAIR, ONE)
        assert loss.item() == pytest.approx(expected, rel=1e-12)

    def test_soft_is_minimal_at_the_teachers_gap(self):
        """exp of a teacher's rewards as scores: a student with the same gap has no gradient."""
        student = array(0.9, -0.3, 2.0).requires_grad_()
        teacher = (student.detach() + 5.0).exp()
        reinforcement.bradley_terry_soft(student, teacher, tensor([0, 0, 0]), ONE).backward()
        assert student.grad.abs().max() < 1e-12

    def test_soft_with_certainty_is_hard(self):
        hard = reinforcement.bradley_terry(array(1.2, 0.4), array(1.0, 0.0), PAIR, ONE)
        soft = reinforcement.bradley_terry_soft(array(1.2, 0.4), array(1.0, 0.0), PAIR, ONE)
        assert soft.item() == pytest.approx(hard.item(), rel=1e-12)

    def test_soft_refuses_negative_scores(self):
        with pytest.raises(RecipeError, match="no negative scores"):
            reinforcement.bradley_terry_soft(array(1.2, 0.4), array(-1.0, 0.0), PAIR, ONE)

    def test_listwise_is_pairwise_for_two_and_plackett_luce_for_more(self):
        pair = reinforcement.bradley_terry_listwise(array(1.2, 0.4), array(1.0, 0.0), PAIR, ONE)
        assert pair.item() == pytest.approx(0.37110066594777763, rel=1e-12)
        values = array(-1.0, -0.8, -1.5)  # the same numbers as in G12
        loss = reinforcement.bradley_terry_listwise(values, array(3.0, 2.0, 1.0), tensor([0, 0, 0]), ONE)
        assert loss.item() == pytest.approx(1.4427322527504027, rel=1e-12)


def test_step_rewards_by_hand():
    logits, labels = array(2.0, 9.0, -1.0), array(1.0, 0.3, 0.25)
    loss = reinforcement.step_rewards(logits, labels, array(1.0, 0.0, 2.0))
    expected = softplus(-2.0) + 2.0 * (0.25 * softplus(1.0) + 0.75 * softplus(-1.0))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


class TestSampledReverseKl:
    @pytest.mark.parametrize("stale", [False, True])
    def test_expected_value_and_gradient_are_the_exact_ones(self, stale):
        """J3, P21, P22: fresh rollouts, and stale ones put right by the ratio."""
        student, teacher = five_tokens(0), five_tokens(1)
        behaviour = five_tokens(2) if stale else student
        log_p = teacher.log_softmax(-1)[0]
        estimated = expectation(
            lambda lp, sampled, share: reinforcement.sampled_reverse_kl(lp, sampled, log_p, share), student, behaviour
        )
        torch.testing.assert_close(estimated, exact(reverse_kl, student, teacher))

    def test_without_the_teacher_the_gradient_is_another(self):
        """P21: differentiating log q - log p itself would lose the teacher."""
        student = five_tokens(0)
        gradients = [
            expectation(
                lambda lp, s, share, t=t: reinforcement.sampled_reverse_kl(lp, s, t.log_softmax(-1)[0], share),
                student,
                student,
            )[1]
            for t in (five_tokens(1), five_tokens(3))
        ]
        assert (gradients[0] - gradients[1]).abs().max() > 0.01


class TestReferenceKl:
    def test_k1_is_the_reverse_kl(self):
        student, reference = five_tokens(0), five_tokens(1)
        log_r = reference.log_softmax(-1)[0]
        estimated = expectation(
            lambda lp, s, share: reinforcement.reference_kl(lp, s, log_r, share, estimator="k1"), student, student
        )
        torch.testing.assert_close(estimated, exact(reverse_kl, student, reference))

    def test_k3_has_its_value_and_the_other_kls_gradient(self):
        """P21: k3 as a loss is not the reverse KL."""
        student, reference = five_tokens(0), five_tokens(1)
        log_r = reference.log_softmax(-1)[0]
        value, gradient = expectation(
            lambda lp, s, share: reinforcement.reference_kl(lp, s, log_r, share, estimator="k3"), student, student
        )
        assert value.item() == pytest.approx(exact(reverse_kl, student, reference)[0].item(), rel=1e-12)
        torch.testing.assert_close(gradient, exact(forward_kl, student, reference)[1])

    def test_unknown_estimator(self):
        with pytest.raises(RecipeError, match="k1 or k3"):
            reinforcement.reference_kl(ONE, ONE, ONE, ONE, estimator="k2")


class TestPolicyGradient:
    def test_fresh_gradient_is_advantage_times_score(self):
        student = array(-1.0, -2.0).requires_grad_()
        reinforcement.policy_gradient(student, student.detach(), array(0.5, -2.0), array(1.0, 3.0)).backward()
        torch.testing.assert_close(student.grad, array(-0.5, 6.0))

    def test_clip_by_hand(self):
        """Ratios 1.5, 1.5, 0.5, 0.5: clipped where going further would look better, not where it looks worse."""
        rollout = torch.full((4,), -1.0, dtype=F64)
        student = (rollout + array(1.5, 1.5, 0.5, 0.5).log()).requires_grad_()
        advantages = array(1.0, -1.0, 1.0, -1.0)
        loss = reinforcement.policy_gradient(student, rollout, advantages, torch.ones(4, dtype=F64), clip=0.2)
        loss.backward()
        assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8), rel=1e-12)
        torch.testing.assert_close(student.grad, array(0.0, 1.5, -0.5, 0.0))

    def test_masked_positions_may_hold_anything(self):
        student = array(-1.0, -2.0).requires_grad_()
        garbage = array(0.0, math.nan)
        reinforcement.policy_gradient(student, garbage - 1.0, garbage + 1.0, array(1.0, 0.0)).backward()
        torch.testing.assert_close(student.grad, array(-1.0, 0.0))

    def test_empty_mask(self):
        student = array(-1.0, -2.0).requires_grad_()
        loss = reinforcement.policy_gradient(student, student.detach(), array(1.0, 1.0), array(0.0, 0.0))
        loss.backward()
        assert loss.item() == 0.0
        assert (student.grad == 0).all()


class TestGroups:
    """Two prompts, of three and two answers; positions 2, 1, 1, 1, 2."""

    sequence = tensor([0, 0, 1, 2, 3, 4, 4])
    group = tensor([0, 0, 0, 1, 1])
    rewards = array(1.0, 0.0, 2.0, 0.5, 0.5)

    def gradient(self, function, **knobs):
        student = torch.full((7,), -1.0, dtype=F64).requires_grad_()
        weight = torch.ones(7, dtype=F64)
        function(student, student.detach(), self.sequence, self.rewards, self.group, weight, **knobs).backward()
        return -student.grad

    def test_group_advantage_by_hand(self):
        """Mean 1, sample deviation 1; the second prompt's equal rewards teach nothing."""
        a = 1 / (1 + 1e-4)
        torch.testing.assert_close(self.gradient(reinforcement.group_advantage), array(0, 0, -a, a, 0, 0, 0))
        plain = self.gradient(reinforcement.group_advantage, divide_by_deviation=False)
        torch.testing.assert_close(plain, array(0, 0, -1, 1, 0, 0, 0))

    def test_leave_one_out_by_hand(self):
        """J3 (RLOO): 1 - (0 + 2) / 2, 0 - (1 + 2) / 2, 2 - (1 + 0) / 2."""
        torch.testing.assert_close(self.gradient(reinforcement.leave_one_out), array(0, 0, -1.5, 1.5, 0, 0, 0))

    @pytest.mark.parametrize("function", [reinforcement.group_advantage, reinforcement.leave_one_out])
    def test_a_lonely_answer_teaches_nothing(self, function):
        student = array(-1.0, -1.0).requires_grad_()
        function(student, student.detach(), tensor([0, 0]), array(7.0), tensor([0]), array(1.0, 1.0)).backward()
        assert (student.grad == 0).all()

    @pytest.mark.parametrize("function", [reinforcement.group_advantage, reinforcement.leave_one_out])
    def test_a_constant_reward_changes_nothing(self, function):
        before = self.gradient(function)
        self.rewards = self.rewards + 10.0
        torch.testing.assert_close(self.gradient(function), before)


def test_rlmec_by_hand():
    """Rewards .4 and -.1 (clipped from -.3), 0 for a right token below one half; ratios 1, 2 (stays: worse), 1."""
    student = array(-1.0, -0.5, -2.0, -3.0).requires_grad_()
    rollout = array(-1.0, -0.5 - math.log(2.0), -2.0, -3.0)
    judge, right = array(0.9, 0.2, 0.3, 0.9), tensor([True, False, True, True])
    loss = reinforcement.rlmec(student, rollout, judge, right, array(1.0, 1.0, 1.0, 0.0))
    loss.backward()
    torch.testing.assert_close(student.grad, array(-0.4, 0.2, 0.0, 0.0))
    assert loss.item() == pytest.approx(0.4 * 1.0 + 0.2 * -0.5, rel=1e-12)
