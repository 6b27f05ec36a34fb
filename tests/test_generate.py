"""The one generation loop."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from stillhouse.errors import RecipeError
from stillhouse.generate import answering, generate, generate_sorted, inverse_cdf

SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [5, 5]]


def llama(**more):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, initializer_range=0.5, max_position_embeddings=64, **more)).eval()


def mistral():
    """Looks at the last 6 tokens only."""
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(**SMALL, initializer_range=0.5, sliding_window=6, num_key_value_heads=2)
    ).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5)
    ).eval()


def naive(model, prompt, limit, eos_ids):
    """Greedy without a cache, one prompt at a time."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in eos_ids:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("make", [llama, mistral, gpt2])
def test_greedy_answers_are_those_of_a_loop_without_cache(make):
    model = make()
    free = generate(model, PROMPTS, max_new_tokens=20, eos_ids=[], pad_id=0)
    # an end that some rows meet early, so that rows leave the batch
    eos = [free[0].ids[2], free[2].ids[9]]
    for answer, prompt in zip(generate(model, PROMPTS, max_new_tokens=20, eos_ids=eos, pad_id=0), PROMPTS):
        assert answer.ids == naive(model, prompt, 20, eos)
        assert answer.finished == (answer.ids[-1] in eos)
    assert len(free[0].ids) == 20
    assert not free[0].finished


def test_eager_attention_gives_the_same():
    model = llama()
    fast = generate(model, PROMPTS, max_new_tokens=15, eos_ids=[], pad_id=0)
    model.set_attn_implementation("eager")
    assert generate(model, PROMPTS, max_new_tokens=15, eos_ids=[], pad_id=0) == fast


def test_a_sampled_answer_depends_on_its_seed_and_not_on_its_neighbours():
    model = llama()
    how = {"max_new_tokens": 12, "eos_ids": [3], "pad_id": 0, "temperature": 1.0}
    together = generate(model, PROMPTS, seeds=[4, 5, 6, 7], **how)
    alone = [generate(model, [prompt], seeds=[seed], **how)[0] for prompt, seed in zip(PROMPTS, [4, 5, 6, 7])]
    assert together == alone
    assert generate(model, PROMPTS, seeds=[14, 15, 16, 17], **how) != together
    turned = dict(generate_sorted(model, PROMPTS, batch_size=2, seeds=[4, 5, 6, 7], **how))
    assert [turned[index] for index in range(4)] == together


def test_samples_follow_the_models_distribution():
    """Chi-squared of 4,000 first tokens against softmax(logits / T); 1 in 10,000 for 39 degrees of freedom is 79."""
    model = llama()
    with torch.no_grad():
        probs = torch.softmax(model(torch.tensor([PROMPTS[0]])).logits[0, -1] / 1.7, -1).numpy()
    drawn = generate(model, [PROMPTS[0]] * 4000, max_new_tokens=1, eos_ids=[], pad_id=0, temperature=1.7)
    counts = np.bincount([answer.ids[0] for answer in drawn], minlength=40)
    assert ((counts - 4000 * probs) ** 2 / (4000 * probs)).sum() < 79


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    model = llama()
    with torch.no_grad():
        probs = torch.softmax(model(torch.tensor([PROMPTS[0]])).logits[0, -1], -1)
    order = probs.sort(descending=True)
    kept = set(order.indices[: int((order.values.cumsum(-1) < 0.5).sum()) + 1].tolist())
    drawn = generate(model, [PROMPTS[0]] * 500, max_new_tokens=1, eos_ids=[], pad_id=0, temperature=1.0, top_p=0.5)
    assert {answer.ids[0] for answer in drawn} == kept


def test_a_token_of_probability_zero_is_never_drawn():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).expand(5, -1)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.9999999, 1.0 - 2**-24])
    assert inverse_cdf(probs, uniform).tolist() == [1, 1, 3, 3, 3]


@pytest.mark.parametrize("vocabulary", [128 * 128 + 1, 20_000, 129 * 128])
def test_tokens_of_a_large_vocabulary_are_found_by_blocks(vocabulary):
    """Against float64: a block's sum is rounded, so the token next to the exact one is right at its edge."""
    draw = torch.Generator().manual_seed(1)
    probs = torch.rand(300, vocabulary, generator=draw, dtype=torch.float64) ** 8
    probs *= torch.rand(300, vocabulary, generator=draw, dtype=torch.float64) < 0.3
    probs[:, -3:] = 0
    probs /= probs.sum(-1, keepdim=True)
    uniform = torch.rand(300, generator=draw)
    uniform[:2] = torch.tensor([0.0, 1 - 2**-24])
    found = inverse_cdf(probs.float(), uniform)
    assert (probs.gather(-1, found[:, None]) > 0).all()
    cdf = probs.cumsum(-1).gather(-1, found[:, None])[:, 0]
    below = cdf - probs.gather(-1, found[:, None])[:, 0]
    assert ((uniform.double() >= below - 1e-5) & (uniform.double() <= cdf + 1e-5)).all()


def test_a_full_context_ends_a_row_and_not_its_neighbours():
    model = llama()
    long = list(range(4, 34)) * 2
    answers = generate(model, [long, [5]], max_new_tokens=10, eos_ids=[], pad_id=0)
    assert [len(answer.ids) for answer in answers] == [4, 10]
    assert not answers[0].finished
    with pytest.raises(RecipeError, match="leaves no room for an answer"):
        generate(model, [long + [1] * 4], max_new_tokens=10, eos_ids=[], pad_id=0)


def test_nothing_asked_nothing_answered():
    assert generate(llama(), [], max_new_tokens=3, eos_ids=[], pad_id=0) == []


def flags(model):
    return {name: (m.training, getattr(m, "gradient_checkpointing", None)) for name, m in model.named_modules()}


def test_the_model_comes_back_with_its_flags_after_an_error_too():
    """P30: training mode of every module, and gradient checkpointing, which would switch the cache off."""
    model = llama().train()
    model.activation_checkpointing_enable()
    model.lm_head.eval()
    before = flags(model)
    assert any(checkpointed for _, checkpointed in before.values())
    with answering(model):
        assert not any(training or checkpointed for training, checkpointed in flags(model).values())
    with pytest.raises(IndexError):
        generate(model, [[10**6]], max_new_tokens=3, eos_ids=[], pad_id=0)
    assert flags(model) == before
    generate(model, PROMPTS, max_new_tokens=3, eos_ids=[], pad_id=0)
    assert flags(model) == before
