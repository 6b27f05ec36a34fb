"""The kit finds nothing in ours, and finds each mistake that is put into a plain loss on purpose."""

import pytest
import torch
from torch.nn import functional

from stillhouse.kernels.beliefs import Dense, Sampled, TopK
from stillhouse.objectives.divergence import forward_kl, generalised_jensen_shannon
from stillhouse.testing.conformance import CHECKS, Subject, examine, table
from stillhouse.testing.formulas import EVERY, FORMULAS


def ours(name):
    function, knobs = EVERY[name]

    def loss(student, teacher, mask, *, temperature, count):
        return function(student, Dense(teacher), mask.float(), temperature=temperature, **knobs) / count

    def mixture(share):
        def loss(student, teacher, mask, *, temperature, count):
            return generalised_jensen_shannon(student, Dense(teacher), mask.float(), teacher_weight=share) / count

        return loss

    only_forward = name == "forward_kl"
    return Subject(
        name,
        loss,
        FORMULAS[name],
        forward_kl=only_forward,
        top_k=(lambda z, ids, lp, m: forward_kl(z, TopK(ids, lp), m.float()) / m.sum()) if only_forward else None,
        sampled=(lambda z, ids, c, m: forward_kl(z, Sampled(ids, c), m.float()) / m.sum()) if only_forward else None,
        mixture=mixture if name == "generalised_jensen_shannon" else None,
        vocabulary_aware=lambda z, t, m, v: function(z, Dense(t, vocabulary=v), m.float(), **knobs),
    )


@pytest.mark.parametrize("name", EVERY)
def test_ours_has_no_finding(name):
    assert [finding for finding in examine(ours(name)) if finding.passed is False] == []


def plain(student, teacher, mask, *, temperature, count):
    """What one writes first: right in the easy cases."""
    log_q, log_p = (x.div(temperature).log_softmax(-1) for x in (student, teacher))
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)[mask].sum() / count


def mistaken(pitfall):
    def loss(student, teacher, mask, *, temperature, count):
        match pitfall:
            case "P01":
                mask = mask.roll(1, -1)
            case "P02":
                mask = torch.ones_like(mask)
            case "P06":
                count = mask.sum()
            case "P09":
                count = count * student.shape[-1]
            case "P10":
                return plain(student, teacher, mask, temperature=temperature, count=count)
            case "P11":
                p, log_q = teacher.div(temperature).softmax(-1), student.div(temperature).log_softmax(-1)
                return temperature**2 * -(p * log_q).sum(-1)[mask].sum() / count
            case "P13":
                return plain(student.bfloat16(), teacher.bfloat16(), mask, temperature=temperature, count=count)
            case "P20":
                p, q = teacher.softmax(-1), student.softmax(-1)
                return (p * (p / q).log()).sum(-1)[mask].sum() / count
            case "P31":
                return plain(student, teacher, mask, temperature=temperature, count=1) / mask.sum()
        return temperature**2 * plain(student, teacher, mask, temperature=temperature, count=count)

    return Subject(pitfall, loss, FORMULAS["forward_kl"], forward_kl=True)


@pytest.mark.parametrize("pitfall", ["P01", "P02", "P06", "P09", "P10", "P11", "P13", "P20", "P31"])
def test_each_mistake_is_found(pitfall):
    found = {finding.pitfall: finding.passed for finding in examine(mistaken(pitfall))}
    assert found[pitfall] is False


def test_the_plain_loss_fails_only_where_it_must():
    found = {finding.pitfall for finding in examine(mistaken("none")) if finding.passed is False}
    # two widths cannot be compared; a softmax in bfloat16 rounds the gradient; kl_div makes nan of -inf
    assert found == {"P12", "P13", "P19"}


def test_renormalised_top_k_is_found():
    def both_renormalised(student, ids, logprobs, mask):
        log_p, log_q = logprobs.log_softmax(-1), student.gather(-1, ids).log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)[mask].mean()

    subject = Subject("top", plain, FORMULAS["forward_kl"], top_k=both_renormalised)
    assert {f.pitfall: f.passed for f in examine(subject)}["P15"] is False


def test_sample_treated_as_top_k_is_found():
    def set_of_ids(student, ids, counts, mask):
        """Each id once, as if its count were no matter."""
        target = torch.zeros_like(student).scatter(-1, ids, 1.0)
        target = target / target.sum(-1, keepdim=True)
        return -(target * student.log_softmax(-1)).sum(-1)[mask].mean()

    subject = Subject("sample", plain, FORMULAS["forward_kl"], sampled=set_of_ids)
    assert {f.pitfall: f.passed for f in examine(subject)}["P16"] is False


def test_reversed_mixture_is_found():
    def reversed_share(share):
        def loss(student, teacher, mask, *, temperature, count):
            return generalised_jensen_shannon(student, Dense(teacher), mask.float(), teacher_weight=1 - share) / count

        return loss

    subject = Subject("mixture", plain, FORMULAS["forward_kl"], mixture=reversed_share)
    assert {f.pitfall: f.passed for f in examine(subject)}["P18"] is False


def test_table_has_a_row_per_question_and_says_what_failed():
    lines = list(table({"ours": examine(ours("forward_kl")), "mean": examine(mistaken("P06"))}))
    assert len(lines) > 1 + len(CHECKS)
    row = next(line for line in lines if line.strip().startswith("P06"))
    assert row.split()[-2:] == ["yes", "NO"]
    assert any(line.startswith("mean, P06: micro-batches") for line in lines)
