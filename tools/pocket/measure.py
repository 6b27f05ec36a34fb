"""Measures a model on held-out items: greedy answers, one checker per skill, Wilson intervals."""

from itertools import islice
from math import sqrt

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tools.pocket.chat import prompt_text
from tools.pocket.item import Draw, Item
from tools.pocket.mixture import GRADED, SKILLS
from tools.pocket.skills import word_problems

HELD_OUT_SEED = 77
EASY = "easy word problems"
GRADED_ROWS = (*(skill.NAME for skill in GRADED), EASY)


@torch.inference_mode()
def answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, items: list[Item], *, batch: int = 64, limit: int = 112
) -> list[str]:
    """Greedy answers in the order of the items; batches hold prompts of like length."""
    prompts = [prompt_text(item) for item in items]
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    found = [""] * len(items)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([prompts[i] for i in chosen], padding=True, padding_side="left", return_tensors="pt")
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=limit,
            do_sample=False,
        )
        said = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(chosen, said, strict=True):
            found[i] = text
    return found


def held_out(name: str, count: int) -> list[Item]:
    """The published items: held-out wordings and combinations, in the form that the table counts."""
    draw = Draw(HELD_OUT_SEED, held_out=True)
    make = {EASY: word_problems.make_easy, word_problems.NAME: word_problems.make_graded}.get(name) or SKILLS[name].make
    return list(islice(iter(lambda: make(draw), None), count))


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> dict[str, dict]:
    """Right answers, items and the 95 % interval for each skill."""
    model.eval()
    return {name: score(model, tokenizer, held_out(name, count)) for name in (*SKILLS, EASY)}


def score(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, items: list[Item]) -> dict:
    said = answers(model, tokenizer, items)
    correct = sum(SKILLS[item.skill].right(item, text) for item, text in zip(items, said, strict=True))
    low, high = wilson(correct, len(items))
    return {"right": correct, "items": len(items), "accuracy": correct / len(items), "interval": [low, high]}


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    share, width = right / count, z * z / count
    middle, half = share + width / 2, z * sqrt(share * (1 - share) / count + width / (4 * count))
    return (middle - half) / (1 + width), (middle + half) / (1 + width)
