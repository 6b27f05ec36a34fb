"""Distilling one language model into another in one file: torch, transformers, and nothing else.

    python minimal_kd.py TEACHER STUDENT examples.jsonl OUT --steps 200

Each line of examples.jsonl has a "prompt" and a "response". The student learns the teacher's next-token distribution at
every token of the response (forward KL; Eq. 10 of the survey). This is what stillhouse computes when a recipe says
`{do: divergence.forward_kl, on: examples, teacher: main}`, and a test holds the two together. It is here to be read
and changed; stillhouse adds what a real run needs: packing, accumulation over processes, resuming, stored beliefs, the
student's own answers, and refusing what cannot be right.
"""

import argparse
import json
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def render(tokenizer, prompt, response):
    """Token ids of prompt, response and one end-of-turn token, and where the response starts.

    The prompt is rendered as it will be at inference, with the header of the assistant's turn; only what follows it is
    learned. The template writes its own beginning-of-sequence token, so none is added.
    """
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    start = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = tokenizer(text + response, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id], start


def collate(rows, pad_id):
    """One padded batch: ids, attention mask, and which positions predict a token of a response.

    The mask is over positions, never over ids: the padding may have the id of the end-of-turn token.
    """
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), width), pad_id)
    attention = torch.zeros(len(rows), width, dtype=torch.long)
    predicts = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (ids, start) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention[row, : len(ids)] = 1
        predicts[row, start - 1 : len(ids) - 1] = True  # the logits at t are about the token at t + 1
    return input_ids, attention, predicts


def forward_kl(student_logits, teacher_logits):
    """KL(teacher || student) at each position, in float32 or better: it is 0 where the two agree, unlike a cross-entropy."""
    wide = torch.promote_types(student_logits.dtype, torch.float32)
    log_p = torch.log_softmax(teacher_logits, -1, dtype=wide)
    log_q = torch.log_softmax(student_logits, -1, dtype=wide)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def distil(teacher, student, steps, *, pad_id, learning_rate):
    """Trains the student in place. `steps` is a list of lists of micro-batches of rows; gives the loss of each step.

    A step is divided by the number of response tokens in all of its micro-batches. Dividing each micro-batch by its own
    number and averaging would weigh a token in a short batch more than one in a long batch.
    """
    teacher.eval().requires_grad_(False)
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(steps))
    losses = []
    for micro_batches in steps:
        batches = [collate(rows, pad_id) for rows in micro_batches]
        count = sum(int(predicts.sum()) for _, _, predicts in batches)
        total = 0.0
        for input_ids, attention, predicts in batches:
            with torch.no_grad():
                teacher_logits = teacher(input_ids=input_ids, attention_mask=attention).logits[predicts]
            student_logits = student(input_ids=input_ids, attention_mask=attention).logits[predicts]
            loss = forward_kl(student_logits, teacher_logits).sum() / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    student.eval()
    return losses


def shuffled(rows, steps, micro_batches, size, seed):
    """`steps` lists of `micro_batches` lists of `size` rows, passing over the rows as often as needed."""
    draw, queue = random.Random(seed), []
    for _ in range(steps):
        step = []
        for _ in range(micro_batches):
            if len(queue) < size:
                queue += draw.sample(rows, len(rows))
            step.append([queue.pop(0) for _ in range(min(size, len(queue)))])
        yield step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("teacher", "student", "examples", "out"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches per step")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=512, help="longer examples are left out, never cut")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.student)
    teacher, student = (AutoModelForCausalLM.from_pretrained(path) for path in (args.teacher, args.student))
    if tokenizer.get_vocab() != AutoTokenizer.from_pretrained(args.teacher).get_vocab():
        parser.error("teacher and student must share their tokenizer: the loss compares token by token")

    with open(args.examples, encoding="utf-8") as lines:
        examples = [json.loads(line) for line in lines if line.strip()]
    rows = [render(tokenizer, example["prompt"], example["response"]) for example in examples]
    kept = [row for row in rows if len(row[0]) <= args.max_length]
    print(f"{len(kept)} examples, {len(rows) - len(kept)} left out as too long")

    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    steps = list(shuffled(kept, args.steps, args.accumulate, args.batch_size, args.seed))
    losses = distil(teacher, student, steps, pad_id=pad_id, learning_rate=args.learning_rate)
    print(f"KL to the teacher per token: {losses[0]:.4f} at the start, {losses[-1]:.4f} at the end")
    student.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
