"""Rows come back as they were stored, however many are read together; samples are unbiased."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.signals.bits import PrefixCode, packed, padded, unpacked, words_of
from stillhouse.signals.codecs import STEP, Draws, Kept, SampledCodec, StatesCodec, TopKCodec, id_gaps
from stillhouse.signals.taking import sampled, top_k


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 2**25 - 1)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_numbers_come_back_in_their_widths(pairs: list[tuple[int, int]]) -> None:
    widths = np.array([width for width, _ in pairs])
    values = np.array([value & ((1 << width) - 1) for width, value in pairs])
    stream = packed(values, widths)
    assert len(stream) == -(-int(widths.sum()) // 8)
    assert unpacked(words_of(padded(stream)), np.cumsum(widths) - widths, widths).tolist() == values.tolist()


@given(st.lists(st.integers(0, 999), min_size=1, max_size=80), st.integers(1000, 200_000))
@settings(max_examples=40, deadline=None)
def test_a_prefix_code_fitted_to_a_sample_writes_every_number_below_its_limit(sample: list[int], limit: int) -> None:
    code = PrefixCode.fitted(np.array(sample), limit)
    numbers = np.array([0, 1, limit // 2, limit - 1])
    classes = code.classes(numbers)
    rest, widths = code.rest(numbers, classes)
    assert (rest >= 0).all() and (rest < 1 << widths).all()
    assert (rest + code.bases[classes] == numbers).all()


def rows_of(codec: object, encoded: list[bytes], tokens: list[int]) -> object:
    sizes = np.array([len(row) for row in encoded])
    ends = np.cumsum(sizes)
    return codec.decode(padded(b"".join(encoded)), ends - sizes, ends, np.array(tokens))  # type: ignore[attr-defined]


@pytest.mark.parametrize("vocabulary", [7, 512, 151_936])
def test_top_k_comes_back_with_its_order_its_tail_and_values_within_half_a_step(vocabulary: int) -> None:
    torch.manual_seed(0)
    taken = [top_k(3 * torch.randn(T, vocabulary), k=40, least=1e-4) for T in (1, 5, 33)]
    codec = TopKCodec(40, PrefixCode.fitted(np.concatenate([one.ids_n for one in taken]), vocabulary))
    read = rows_of(codec, [codec.encode(one) for one in taken], [1, 5, 33])
    assert isinstance(read, Kept)
    assert read.ids_n.tolist() == np.concatenate([one.ids_n for one in taken]).tolist()
    assert read.counts_N.tolist() == np.concatenate([one.counts_N for one in taken]).tolist()
    true = np.concatenate([one.logprobs_n for one in taken])
    assert np.abs(read.logprobs_n - true).max() <= STEP  # half a step, and the share of it that scaling moves
    firsts = np.cumsum(read.counts_N) - read.counts_N
    assert np.add.reduceat(np.exp(read.logprobs_n), firsts) == pytest.approx(
        np.add.reduceat(np.exp(true), firsts), abs=3e-4
    )


def test_top_k_of_the_whole_vocabulary_is_the_whole_distribution() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 9)
    one = top_k(logits, k=64, least=0.0)
    assert one.counts_N.tolist() == [8] * 4  # the last token is the tail
    left = 1 - np.exp(one.logprobs_n).reshape(4, 8).sum(-1)
    assert left == pytest.approx(logits.softmax(-1).min(-1).values.numpy(), abs=1e-6)


def test_a_certain_teacher_and_an_impossible_token_do_no_harm() -> None:
    logits = torch.full((3, 50), -torch.inf)
    logits[:, 7] = 0.0
    logits[1, 3] = -90.0
    one = top_k(logits, k=8, least=0.0)
    codec = TopKCodec(8, PrefixCode.fitted(one.ids_n, 50))
    read = rows_of(codec, [codec.encode(one)], [3])
    assert isinstance(read, Kept)
    ids_NK, logprobs_NK = read.padded()
    assert ids_NK[:, 0].tolist() == [7, 7, 7]
    assert np.exp(logprobs_NK[:, 0]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("draws", [1, 8, 50])
def test_samples_come_back_as_they_were_drawn(draws: int) -> None:
    torch.manual_seed(0)
    taken = [sampled(4 * torch.randn(T, 300), draws=draws, seed=T) for T in (1, 2, 17)]
    codec = SampledCodec(draws, PrefixCode.fitted(np.concatenate([id_gaps(one) for one in taken]), 300))
    read = rows_of(codec, [codec.encode(one) for one in taken], [1, 2, 17])
    assert isinstance(read, Draws)
    for name in ("counts_N", "ids_n", "times_n"):
        assert getattr(read, name).tolist() == np.concatenate([getattr(one, name) for one in taken]).tolist()
    assert np.add.reduceat(read.times_n, np.cumsum(read.counts_N) - read.counts_N).tolist() == [draws] * 20


def test_p16_the_expected_gradient_of_samples_is_the_dense_one() -> None:
    """Monte Carlo: counts / draws estimates each probability without bias, so q - counts / draws does q - p."""
    from stillhouse.kernels.beliefs import Dense, Sampled
    from stillhouse.objectives.divergence import forward_kl

    torch.manual_seed(0)
    teacher, student = 2 * torch.randn(1, 12), torch.randn(1, 12)

    def gradient(beliefs: object, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone().requires_grad_()
        forward_kl(logits, beliefs, torch.ones(len(logits))).backward()  # type: ignore[arg-type]
        assert logits.grad is not None
        return logits.grad

    times = 4000
    drawn = Draws(*(np.concatenate(arrays) for arrays in zip(*(
        (one.counts_N, one.ids_n, one.times_n) for one in (sampled(teacher, draws=5, seed=s) for s in range(times))
    ))))  # fmt: skip
    ids, counts = (torch.from_numpy(array) for array in drawn.padded())
    each = gradient(Sampled(ids, counts), student.expand(times, -1))
    error = each.std(0) / times**0.5
    assert ((each.mean(0) - gradient(Dense(teacher), student)[0]).abs() < 4.5 * error + 1e-6).all()
    assert (error > 0).any()


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 0.0), ("bfloat16", 2**-8), ("int8", 0.6 / 127)])
def test_hidden_states_come_back(dtype: str, allowed: float) -> None:
    hidden = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    codec = StatesCodec(24, dtype)
    read = rows_of(codec, [codec.encode(hidden[:4]), codec.encode(hidden[4:])], [4, 5])
    assert np.abs(read - hidden).max() <= allowed * np.abs(hidden).max()


def test_the_states_of_a_bfloat16_model_are_exact() -> None:
    hidden = torch.randn(5, 16).bfloat16().float().numpy()
    codec = StatesCodec(16, "bfloat16")
    assert (rows_of(codec, [codec.encode(hidden)], [5]) == hidden).all()
