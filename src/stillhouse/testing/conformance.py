"""A kit that any distillation loss can be run against: the mistakes that were found in real ones, one check each.

Legend: B sequences, T positions, V vocabulary, K kept tokens. Describe the loss as a `Subject`, call `examine`, read the
findings. Each is named after a pitfall (P02 ...) and says what was seen; `passed` is None where the subject has nothing
to be asked. The oracle is `formulas`, differentiated in float64.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.errors import StillhouseError
from stillhouse.testing.formulas import FORMULAS

Formula = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Subject:
    """A loss to examine.

    `loss(student_BTV, teacher_BTV, mask_BT, *, temperature, count)` is the loss divided by `count`, the number of targets
    of the whole accumulation window, as far as the implementation can be told it; `mask_BT` lines up with the logits.
    `formula` is what it should be, by position, of probabilities (teacher, student). The others are None where the
    implementation has no such thing: a `top_k` and a `sampled` form of the same divergence (ids_BTK with log-probabilities
    or counts), and `mixture`, which gives the loss of a generalised Jensen-Shannon at a share of the teacher.
    """

    name: str
    loss: Callable[..., Tensor]
    formula: Formula
    forward_kl: bool = False
    has_temperature: bool = True
    top_k: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    sampled: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    mixture: Callable[[float], Callable[..., Tensor]] | None = None
    vocabulary_aware: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`passed` None: does not apply."""

    pitfall: str
    question: str
    passed: bool | None
    seen: str


# what a loss may raise when it is given something it cannot do: a finding, not the end of the examination
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError, StillhouseError)


def examine(subject: Subject) -> list[Finding]:
    """All findings, in the order of the pitfalls."""
    return [_asked(subject, pitfall, question, check) for pitfall, question, check in CHECKS]


def _asked(
    subject: Subject, pitfall: str, question: str, check: Callable[[Subject], tuple[bool | None, str]]
) -> Finding:
    try:
        passed, seen = check(subject)
    except _REFUSALS as error:
        passed, seen = False, f"raises {type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
    return Finding(pitfall, question, passed, seen)


def _logits(*shape: int, seed: int, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)


def _mask() -> Tensor:
    """Two prompts of different length and some padding: 7 of 12 positions count."""
    return torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]], dtype=torch.bool)


def _measured(loss: Callable[[Tensor], Tensor], student: Tensor) -> tuple[Tensor, Tensor]:
    student = student.detach().clone().requires_grad_()
    value = loss(student)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach().double(), gradient.double()


def _subject(subject: Subject, teacher: Tensor, mask: Tensor, temperature: float = 1.0) -> Callable[[Tensor], Tensor]:
    return lambda z: subject.loss(z, teacher, mask, temperature=temperature, count=int(mask.sum()))


def _oracle(formula: Formula, teacher: Tensor, mask: Tensor, temperature: float = 1.0) -> Callable[[Tensor], Tensor]:
    p = (teacher.double() / temperature).softmax(-1)
    return lambda z: (formula(p, (z.double() / temperature).softmax(-1)) * mask).sum() / mask.sum()


def _relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def _formula(subject: Subject) -> tuple[bool, str]:
    student, teacher, mask = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask()
    value, gradient = _measured(_subject(subject, teacher, mask), student)
    expected, expected_gradient = _measured(_oracle(subject.formula, teacher, mask), student)
    value_error, gradient_error = _relative(value, expected), _relative(gradient, expected_gradient)
    return (
        value_error < 1e-4 and gradient_error < 1e-4,
        f"value {value.item():.6f}, should be {expected.item():.6f}; gradient error {gradient_error:.1e}",
    )


def _mask_lines_up(subject: Subject) -> tuple[bool, str]:
    mask = _mask()
    _, gradient = _measured(_subject(subject, _logits(2, 6, 9, seed=2), mask), _logits(2, 6, 9, seed=1))
    learned = gradient.abs().sum(-1) > 0
    wrongly, missed = int((learned & ~mask).sum()), int((~learned & mask).sum())
    return wrongly + missed == 0, f"{wrongly} masked positions learn, {missed} others do not"


def _masked_do_not_matter(subject: Subject) -> tuple[bool, str]:
    student, teacher, mask = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask()
    before = _measured(_subject(subject, teacher, mask), student)
    same = []
    for junk in (17.0, math.nan):
        other = torch.where(mask[..., None], student, junk), torch.where(mask[..., None], teacher, -junk)
        after = _measured(_subject(subject, other[1], mask), other[0])
        same.append(
            bool(torch.isclose(after[0], before[0], rtol=1e-6)) and torch.allclose(after[1], before[1], atol=1e-7)
        )
    passed, survives_nan = same
    return passed, ("they do not reach the loss" if passed else "they reach the loss") + (
        "" if survives_nan else "; nan there does"
    )


def _micro_batches(subject: Subject) -> tuple[bool, str]:
    student, teacher, mask = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask()
    count = int(mask.sum())
    _, whole = _measured(_subject(subject, teacher, mask), student)

    def apart(z: Tensor) -> Tensor:
        return sum(
            (
                subject.loss(z[b : b + 1], teacher[b : b + 1], mask[b : b + 1], temperature=1.0, count=count)
                for b in (0, 1)
            ),
            torch.zeros(()),
        )

    _, parts = _measured(apart, student)
    cosine = torch.nn.functional.cosine_similarity(whole.flatten(), parts.flatten(), dim=0).item()
    ratio = (parts.norm() / whole.norm()).item()
    return cosine > 0.9999 and abs(
        ratio - 1
    ) < 1e-3, f"micro-batches of 4 and 3 targets: cosine {cosine:.3f}, norm x{ratio:.2f}"


def _certain_teacher(subject: Subject) -> tuple[bool | None, str]:
    if not subject.forward_kl:
        return None, "only for a forward KL"
    student, mask = _logits(2, 6, 9, seed=1), _mask()
    target = torch.randint(0, 9, (2, 6), generator=torch.Generator().manual_seed(3))
    teacher = 60.0 * torch.nn.functional.one_hot(target, 9).float()
    value = subject.loss(student, teacher, mask, temperature=1.0, count=int(mask.sum())).item()
    expected = torch.nn.functional.cross_entropy(student[mask], target[mask]).item()
    return abs(value - expected) < 1e-3 * expected, f"{value:.4f}, the cross-entropy per token is {expected:.4f}"


def _temperature(subject: Subject) -> tuple[bool | None, str]:
    if not subject.has_temperature:
        return None, "no temperature"
    student, teacher, mask, hot = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask(), 8.0
    _, gradient = _measured(_subject(subject, teacher, mask, hot), student)
    _, plain = _measured(_oracle(subject.formula, teacher, mask, hot), student)
    factor = (gradient.norm() / plain.norm()).item()
    return abs(factor / hot**2 - 1) < 0.01, f"at T = 8 the gradient is multiplied by {factor:.3g} (T^2 is 64)"


def _equal(subject: Subject) -> tuple[bool, str]:
    same, mask = _logits(2, 6, 9, seed=1), _mask()
    value, gradient = _measured(_subject(subject, same.clone(), mask), same)
    size = gradient.abs().max().item()
    return abs(value.item()) < 1e-5 and size < 1e-5, f"loss(p, p) = {value.item():.4f}, largest gradient {size:.1e}"


def _padded(subject: Subject) -> tuple[bool | None, str]:
    student, teacher, mask = _logits(2, 6, 12, seed=1), _logits(2, 6, 15, seed=2), _mask()
    expected = _oracle(subject.formula, teacher[..., :9], mask)(student[..., :9]).item()
    if subject.vocabulary_aware:
        value = (subject.vocabulary_aware(student, teacher, mask, 9) / mask.sum()).item()
    else:
        value = _subject(subject, teacher, mask)(student).item()
    return abs(value - expected) < 1e-4, f"12 and 15 columns of 9 ids: {value:.4f}, should be {expected:.4f}"


def _bfloat16(subject: Subject) -> tuple[bool, str]:
    teacher = _logits(2, 6, 2000, seed=4).bfloat16()
    student = (teacher.double() + 0.11 * _logits(2, 6, 2000, seed=5, scale=1.0).double()).bfloat16()
    mask = _mask()
    _, gradient = _measured(_subject(subject, teacher, mask), student)
    value, exact = _measured(_oracle(FORMULAS["forward_kl"], teacher, mask), student)
    if subject.formula is not FORMULAS["forward_kl"]:
        _, exact = _measured(_oracle(subject.formula, teacher, mask), student)
    error = _relative(gradient, exact)
    return error < 0.01, f"gradient error {error:.2%} at a KL of {value.item():.4f}"


def _long_sum(subject: Subject) -> tuple[bool, str]:
    student, teacher = _logits(1, 1, 4, seed=6), _logits(1, 1, 4, seed=7)
    one = subject.loss(student, teacher, torch.ones(1, 1, dtype=torch.bool), temperature=1.0, count=1).double().item()
    many = torch.ones(1, 30_000, dtype=torch.bool)
    value = subject.loss(
        student.expand(1, 30_000, 4).contiguous(),
        teacher.expand(1, 30_000, 4).contiguous(),
        many,
        temperature=1.0,
        count=30_000,
    )
    error = abs(value.double().item() / one - 1)
    return error < 2e-6, f"the mean of 30,000 equal positions is off by {error:.1e}"


def _top_k(subject: Subject) -> tuple[bool | None, str]:
    if subject.top_k is None:
        return None, "no top-k form"
    student, teacher = _logits(1, 4, 1000, seed=8, scale=1.0), _logits(1, 4, 1000, seed=9, scale=3.0)
    mask = torch.ones(1, 4, dtype=torch.bool)
    kept = teacher.log_softmax(-1).topk(20)
    value, gradient = _measured(lambda z: subject.top_k(z, kept.indices, kept.values, mask), student)  # type: ignore[misc]
    full, full_gradient = _measured(_oracle(subject.formula, teacher, mask), student)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), full_gradient.flatten(), dim=0).item()
    ratio = (gradient.norm() / full_gradient.norm()).item()
    right = -1e-6 <= value.item() <= full.item() * 1.0001 and cosine > 0.98 and 0.95 < ratio < 1.05
    return right, f"{value.item():.2f} of {full.item():.2f} in full; gradient cosine {cosine:.3f}, norm x{ratio:.2f}"


def _sampled(subject: Subject) -> tuple[bool | None, str]:
    if subject.sampled is None:
        return None, "no sampled form"
    draws, caches = 5, 4000
    student, teacher = _logits(1, 1, 6, seed=10), _logits(1, 1, 6, seed=11)
    p = teacher[0, 0].softmax(-1)
    ids = torch.multinomial(p.expand(caches, 6), draws, replacement=True, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, caches, dtype=torch.bool)
    _, gradient = _measured(
        lambda z: subject.sampled(z.expand(1, caches, 6), ids[None], torch.ones_like(ids)[None], mask),  # type: ignore[misc]
        student,
    )
    _, dense = _measured(_oracle(FORMULAS["forward_kl"], teacher, torch.ones(1, 1, dtype=torch.bool)), student)
    error = (gradient - dense).abs()[0, 0] / (p * (1 - p) / draws / caches).sqrt()
    return bool((error < 4).all()), f"at most {error.max().item():.1f} standard errors from the dense gradient"


def _mixture_ends(subject: Subject) -> tuple[bool | None, str]:
    if subject.mixture is None:
        return None, "no mixture"
    student, teacher, mask = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask()
    count, seen, right = int(mask.sum()), [], True
    for share, scale, name in [(1e-3, 1e-3, "forward_kl"), (1 - 1e-3, 1e-3, "reverse_kl")]:
        value = subject.mixture(share)(student, teacher, mask, temperature=1.0, count=count).item() / scale
        expected = _oracle(FORMULAS[name], teacher, mask)(student).item()
        right &= abs(value / expected - 1) < 0.05
        seen.append(f"{name} {value:.3f} of {expected:.3f}")
    return right, "divided by the share that vanishes: " + ", ".join(seen)


def _impossible(subject: Subject) -> tuple[bool, str]:
    student, teacher, mask = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask()
    teacher[..., 3] = -math.inf
    student[..., 5] = teacher[..., 5] = -math.inf
    broken = []
    for temperature in (1.0, 0.05) if subject.has_temperature else (1.0,):
        value, gradient = _measured(_subject(subject, teacher, mask, temperature), student)
        for what, tensor in [("loss", value), ("gradient", gradient)]:
            if not torch.isfinite(tensor).all():
                broken.append(f"{what} at T = {temperature:g}")
    return not broken, f"not finite: {', '.join(broken)}" if broken else "finite at T = 1 and 0.05"


def _extreme(subject: Subject) -> tuple[bool, str]:
    student, teacher, mask = _logits(2, 6, 9, seed=1), _logits(2, 6, 9, seed=2), _mask()
    student[..., 0], teacher[..., 1], student[..., 2] = 1e4, 1e4, -1e4
    value, gradient = _measured(_subject(subject, teacher, mask), student)
    finite = bool(torch.isfinite(value)) and bool(torch.isfinite(gradient).all())
    return finite, f"loss {value.item():.4g} at logits of 1e4, gradient {'finite' if finite else 'not finite'}"


def _empty(subject: Subject) -> tuple[bool, str]:
    student = _logits(2, 6, 9, seed=1).requires_grad_()
    none = torch.zeros(2, 6, dtype=torch.bool)
    loss = subject.loss(student, _logits(2, 6, 9, seed=2), none, temperature=1.0, count=1)
    if not loss.requires_grad:
        return False, f"loss {loss.item():.3g}, cut off from the graph"
    (gradient,) = torch.autograd.grad(loss, student, allow_unused=True)
    silent = gradient is None or bool((gradient == 0).all())
    return loss.item() == 0.0 and silent, f"loss {loss.item():.3g}, gradient {'zero' if silent else 'not zero'}"


CHECKS: tuple[tuple[str, str, Callable[[Subject], tuple[bool | None, str]]], ...] = (
    ("formula", "is it the divergence it says it is?", _formula),
    ("P01", "do exactly the unmasked positions learn?", _mask_lines_up),
    ("P02", "can what is masked be anything?", _masked_do_not_matter),
    ("P06", "do micro-batches add up to the batch?", _micro_batches),
    ("P09", "is a certain teacher cross-entropy per token?", _certain_teacher),
    ("P10", "does the gradient keep its size when T grows?", _temperature),
    ("P11", "is it zero when there is nothing to learn?", _equal),
    ("P12", "are padded vocabularies left out?", _padded),
    ("P13", "is the gradient of bfloat16 logits within 1 %?", _bfloat16),
    ("P14", "do long sums keep their digits?", _long_sum),
    ("P15", "is the top-k form between 0 and the whole, with its gradient?", _top_k),
    ("P16", "is the sampled form unbiased?", _sampled),
    ("P18", "does the mixture tend to the two KLs?", _mixture_ends),
    ("P19", "are impossible tokens survived?", _impossible),
    ("P20", "are logits of 1e4 survived?", _extreme),
    ("P31", "is an empty mask survived?", _empty),
)


def table(reports: dict[str, list[Finding]]) -> Iterator[str]:
    """Lines for people: a row per question, a column per subject, then what was seen where something failed."""
    marks = {True: "yes", False: "NO", None: "-"}
    width = max(len(name) for name in reports) + 2
    yield f"{'':>7}  {'':<62}" + "".join(f"{name:>{width}}" for name in reports)
    for row, (pitfall, question, _) in enumerate(CHECKS):
        yield f"{pitfall:>7}  {question:<62}" + "".join(f"{marks[r[row].passed]:>{width}}" for r in reports.values())
    for name, report in reports.items():
        for finding in report:
            if finding.passed is False:
                yield f"{name}, {finding.pitfall}: {finding.seen}"
