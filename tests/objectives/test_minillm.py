"""Survey 4.4 and 11.2: the tabular test behind G17-G19, exact expectations instead of samples."""

import itertools
import math

import numpy as np
import pytest
import torch

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives.minillm import minillm

VOCABULARY, LENGTH = 3, 3
CONTEXTS = [c for n in range(LENGTH) for c in itertools.product(range(VOCABULARY), repeat=n)]
ROW = {context: i for i, context in enumerate(CONTEXTS)}
SEQUENCES = list(itertools.product(range(VOCABULARY), repeat=LENGTH))
# position n of sequence s reads the logits of the context before it
CONTEXT_N = torch.tensor([ROW[s[:n]] for s in SEQUENCES for n in range(LENGTH)])
TOKEN_N = torch.tensor([s[n] for s in SEQUENCES for n in range(LENGTH)])
SEQUENCE_N = torch.arange(len(SEQUENCES)).repeat_interleave(LENGTH)


def tables():
    rng = np.random.default_rng(0)
    student = np.stack([rng.standard_normal(VOCABULARY) for _ in CONTEXTS])
    teacher = np.stack([rng.standard_normal(VOCABULARY) for _ in CONTEXTS])
    return torch.tensor(student), torch.tensor(teacher)


def sequence_logprobs(table):
    per_token = table.log_softmax(-1)[CONTEXT_N, TOKEN_N]
    return per_token.view(len(SEQUENCES), LENGTH).sum(-1)


def exact_kl(student, teacher):
    log_q, log_p = sequence_logprobs(student), sequence_logprobs(teacher)
    return (log_q.exp() * (log_q - log_p)).sum().item()


def central_differences(student, teacher, step=1e-5):
    gradient = torch.zeros_like(student)
    for i, j in itertools.product(range(len(CONTEXTS)), range(VOCABULARY)):
        up, down = student.clone(), student.clone()
        up[i, j] += step
        down[i, j] -= step
        gradient[i, j] = (exact_kl(up, teacher) - exact_kl(down, teacher)) / (2 * step)
    return gradient


def expected_gradient(student, teacher, teacher_share=0.0, **knobs):
    """The estimator's gradient, each sequence weighted by the probability of sampling it."""
    student = student.clone().requires_grad_()
    logits_NV, teacher_NV = student[CONTEXT_N], teacher[CONTEXT_N]
    student_N, teacher_N = (x.log_softmax(-1).gather(-1, TOKEN_N[:, None])[:, 0] for x in (logits_NV, teacher_NV))
    rollout_N = (teacher_share * teacher_N.exp() + (1 - teacher_share) * student_N.detach().exp()).log()
    sampled_S = rollout_N.view(-1, LENGTH).sum(-1).exp()
    loss = minillm(
        logits_NV,
        Dense(teacher_NV),
        student_N,
        teacher_N,
        rollout_N,
        SEQUENCE_N,
        sampled_S[SEQUENCE_N],
        clip=None,
        length_normalised=False,
        **knobs,
    )
    (gradient,) = torch.autograd.grad(loss, student)
    return gradient


def error(gradient):
    return (gradient - central_differences(*tables())).abs().max().item()


def test_single_step_and_later_return_are_the_gradient_g17():
    """R26 (MiniLLM), J2: the exact form."""
    assert error(expected_gradient(*tables())) < 1e-9


def test_return_of_all_steps_alone_is_the_gradient_g17():
    """The other form, without the exact single step: -E sum_t R_t grad log q."""
    student, teacher = tables()
    student = student.clone().requires_grad_()
    student_N = student.log_softmax(-1)[CONTEXT_N, TOKEN_N]
    teacher_N = teacher.log_softmax(-1)[CONTEXT_N, TOKEN_N]
    r = (teacher_N - student_N).detach().view(-1, LENGTH)
    return_N = r.flip(-1).cumsum(-1).flip(-1).flatten()
    weight_N = student_N.detach().view(-1, LENGTH).sum(-1).exp()[SEQUENCE_N]
    (gradient,) = torch.autograd.grad(-(weight_N * return_N * student_N).sum(), student)
    assert error(gradient) < 1e-9


def test_teacher_mixed_sampling_with_full_products_g18():
    assert error(expected_gradient(*tables(), teacher_share=0.2, importance="sequence")) < 1e-9


def test_token_ratios_are_an_approximation():
    """The default under mixed sampling is near the gradient, not equal to it."""
    got = error(expected_gradient(*tables(), teacher_share=0.2))
    assert 1e-4 < got < 0.1


def test_released_return_is_not_the_gradient_g19():
    assert error(expected_gradient(*tables(), count_current_step=True)) == pytest.approx(0.38016287, abs=1e-7)


def arguments(seed=0):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(5, 4, generator=g, dtype=torch.float64) for _ in range(2))
    token = torch.randint(0, 4, (5, 1), generator=g)
    student.requires_grad_()
    student_N, teacher_N = (x.log_softmax(-1).gather(-1, token)[:, 0] for x in (student, teacher))
    return student, teacher, student_N, teacher_N


def test_length_normalised_return_by_hand():
    """Sequences of 3 and 2: the mean of the later log-ratios, nothing after the last token."""
    student, teacher, student_N, teacher_N = arguments()
    r = (teacher_N - student_N).detach()
    expected = torch.stack([(r[1] + r[2]) / 2, r[2], torch.zeros_like(r[0]), r[4], torch.zeros_like(r[0])])
    same = student_N.detach().clone().requires_grad_()
    weight = torch.ones(5, dtype=torch.float64)
    minillm(
        student.detach(), Dense(teacher), same, teacher_N, student_N, torch.tensor([0, 0, 0, 1, 1]), weight
    ).backward()
    torch.testing.assert_close(same.grad, -expected)


def test_clip_stops_a_token_that_has_moved_too_far():
    """A ratio of 2 under a positive return gives no gradient; under a negative one it does."""
    rollout = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    student = (rollout + torch.tensor([math.log(2.0), 0.0], dtype=torch.float64)).requires_grad_()
    logits, weight = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for later, gradient in [(1.0, 0.0), (-1.0, 2.0)]:
        teacher = student.detach() + torch.tensor([0.0, later], dtype=torch.float64)
        loss = minillm(logits, Dense(logits), student, teacher, rollout, torch.tensor([0, 0]), weight)
        (got,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(got, torch.tensor([gradient, 0.0], dtype=torch.float64))


def test_masked_positions_may_hold_anything():
    student, teacher, student_N, teacher_N = arguments()
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    sequence = torch.tensor([0, 0, 0, 1, 1])
    clean = minillm(student, Dense(teacher), student_N, teacher_N, student_N, sequence, weight)
    (expected,) = torch.autograd.grad(clean, student, retain_graph=True)
    dirty = torch.where(weight == 0, math.nan, teacher_N)
    loss = minillm(student, Dense(teacher), student_N, dirty, student_N, sequence, weight)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == clean.item()
    torch.testing.assert_close(gradient, expected)


def test_empty_mask():
    student, teacher, student_N, teacher_N = arguments()
    none = torch.zeros(5, dtype=torch.float64)
    loss = minillm(student, Dense(teacher), student_N, teacher_N, student_N, torch.zeros(5, dtype=torch.long), none)
    loss.backward()
    assert loss.item() == 0.0
    assert (student.grad == 0).all()


def test_unknown_importance():
    student, teacher, student_N, teacher_N = arguments()
    with pytest.raises(RecipeError, match="token or sequence"):
        minillm(student, Dense(teacher), student_N, teacher_N, student_N, student_N, student_N, importance="none")
