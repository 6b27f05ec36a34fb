"""The contestants of `training_steps.py`, one to a process: `python -m timing.training JOB` serves its questions.

Each trains by its own library's loop and stops after every few steps: it then says how long they took, in wall and in
processor seconds, and waits to be asked for more. After the last it says its peak of memory and leaves its student.
"""

import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

from timing.record import forget_the_peak, memory

SEED, LEARNING_RATE, LONGEST = 0, 1e-3, 512
TEMPLATE = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} <assistant>{% else %}"
    " {{ m.content }} </s>{% endif %}{% endfor %}"
)
TEMPLATE_ANSWER = "<s> <user> {prompt} <assistant> {response} </s>"  # a row as the template writes it


class Asked:
    """Counts steps; after each `every` says what they took and waits."""

    def __init__(self, every: int):
        self.every, self.steps = every, 0
        self.begin()

    def begin(self) -> None:
        self.wall, self.busy = time.perf_counter(), time.process_time()

    def step(self) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            say(value=[time.perf_counter() - self.wall, time.process_time() - self.busy])
            sys.stdin.readline()
            self.begin()


def say(**message: Any) -> None:
    print("@" + json.dumps(message), flush=True)


def serve(job: dict[str, Any]) -> None:
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    rows = json.loads((folder / "rows.json").read_text())
    say(ready=True)
    sys.stdin.readline()
    forget_the_peak()
    before = memory("VmRSS")
    globals()[job["who"]](job, folder, rows["train"])
    say(peak=memory("VmHWM") - before)


def still(job: dict[str, Any], folder: Path, rows: list[dict[str, str]]) -> None:
    from stillhouse.objectives import divergence
    from stillhouse.records import Example, content_id, user
    from stillhouse.train.student import load_student, save_student
    from stillhouse.train.trainer import Rollouts, Term, train

    student, own = load_student(folder / "student"), Teacher(folder / "teacher")
    examples = [
        Example(content_id(n, row["prompt"]), user(row["prompt"]), row["response"]) for n, row in enumerate(rows)
    ]
    asked = Asked(job["every"])
    on_policy = job["workload"] == "on_policy"
    term = Term("divergence", getattr(divergence, job["divergence"]), "rollouts" if on_policy else "x", teacher="t")
    train(
        student, [term], {"x": examples}, teachers={"t": own}, out=folder / job["name"], seed=SEED,
        rollouts=Rollouts("x", max_new_tokens=job["new"]) if on_policy else None,
        arguments={
            "max_steps": job["steps"], "per_device_train_batch_size": job["batch"], "learning_rate": LEARNING_RATE,
            "logging_steps": 1, "save_steps": 10**6,
        },
        on_progress=lambda row: asked.step(),
    )  # fmt: skip
    save_student(student, folder / f"after_{job['name']}")


class Teacher:
    """What the trainer asks of a teacher that is here."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model, self._tokenizer = (
            AutoModelForCausalLM.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )

    def module(self) -> Any:
        return self._model

    def tokenizer(self) -> Any:
        return self._tokenizer


def bare(job: dict[str, Any], folder: Path, rows: list[dict[str, str]]) -> None:
    """Rollout, two forward passes, one backward pass, one step of AdamW: what no on-policy trainer can leave out."""
    from transformers import AutoModelForCausalLM

    from stillhouse.generate import generate
    from stillhouse.objectives import divergence
    from stillhouse.records import user
    from stillhouse.render import render_prompt

    teacher = Teacher(folder / "teacher")
    student = AutoModelForCausalLM.from_pretrained(folder / "student").train()
    prompts = [render_prompt(teacher.tokenizer(), user(row["prompt"])) for row in rows]
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    asked, draw = Asked(job["every"]), random.Random(SEED)
    for step in range(job["steps"]):
        chosen = draw.sample(prompts, job["batch"])
        answers = generate(
            student, chosen, max_new_tokens=job["new"], eos_ids=[1], pad_id=0, temperature=1.0,
            seeds=range(step * 1000, step * 1000 + len(chosen)),
        )  # fmt: skip
        width = max(len(p) + len(a.ids) for p, a in zip(chosen, answers))
        ids, predicts = torch.zeros(len(chosen), width, dtype=torch.long), torch.zeros(len(chosen), width)
        for row, (prompt, answer) in enumerate(zip(chosen, answers)):
            whole = [*prompt, *answer.ids]
            ids[row, : len(whole)] = torch.tensor(whole)
            predicts[row, len(prompt) - 1 : len(whole) - 1] = 1
        with torch.no_grad():
            beliefs = divergence.Dense(teacher.module()(input_ids=ids, use_cache=False).logits)
        logits = student(input_ids=ids, use_cache=False).logits
        (getattr(divergence, job["divergence"])(logits, beliefs, predicts) / predicts.sum()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        asked.step()


def trl_distillation(job: dict[str, Any], folder: Path, rows: list[dict[str, str]]) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DistillationConfig, DistillationTrainer

    given = DistillationConfig(
        str(folder / "trl"), max_completion_length=job["new"], beta=BETA[job["divergence"]], **_common(job)
    )
    prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows])
    trainer = DistillationTrainer(
        model=str(folder / "student"), teacher_model=str(folder / "teacher"), args=given, train_dataset=prompts,
        processing_class=AutoTokenizer.from_pretrained(folder / "student"),
    )  # fmt: skip
    _follow(trainer, job)


def trl_gkd(job: dict[str, Any], folder: Path, rows: list[dict[str, str]]) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    on_policy = job["workload"] == "on_policy"
    given = GKDConfig(
        str(folder / "gkd"), lmbda=1.0 if on_policy else 0.0, beta=BETA[job["divergence"]], temperature=1.0,
        max_new_tokens=job["new"], max_length=LONGEST + 64, **_common(job),
    )  # fmt: skip
    turns = [
        {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}]}
        for r in rows
    ]
    trainer = GKDTrainer(
        model=str(folder / "student"), teacher_model=str(folder / "teacher"), args=given,
        train_dataset=Dataset.from_list(turns), processing_class=AutoTokenizer.from_pretrained(folder / "student"),
    )  # fmt: skip
    _follow(trainer, job)
    trainer.model.save_pretrained(folder / "after_trl_gkd")


BETA = {"forward_kl": 0.0, "reverse_kl": 1.0}


def _common(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "max_steps": job["steps"], "per_device_train_batch_size": job["batch"], "learning_rate": LEARNING_RATE,
        # checkpointing is their default and would take their key-value cache away
        "use_cpu": True, "bf16": False, "gradient_checkpointing": job["checkpointing"], "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1, "disable_tqdm": True, "seed": SEED, "lr_scheduler_type": "linear",
    }  # fmt: skip


def _follow(trainer: Any, job: dict[str, Any]) -> None:
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    asked = Asked(job["every"])

    class Follower(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            asked.begin()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            asked.step()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Follower())
    trainer.train()


def prepare(folder: Path, workload: str, rows: int) -> None:
    """Teacher, student and rows. On-policy: V = 512, 0.26M and 0.1M. Ragged: V = 32,000, the shapes of 15M and 3M."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = 512 if workload == "on_policy" else 32_000
    words = ["<pad>", "</s>", "<s>", "<user>", "<assistant>", *(f"w{n}" for n in range(vocabulary - 5))]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<user>", "<assistant>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    shapes = {"on_policy": ((64, 5, 172, 8), (48, 2, 128, 4)), "ragged": ((288, 6, 768, 6), (64, 5, 176, 4))}[workload]
    for name, (width, layers, inner, heads) in zip(("teacher", "student"), shapes):
        torch.manual_seed(SEED + len(name))
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, intermediate_size=inner,
            num_attention_heads=heads, max_position_embeddings=1024, tie_word_embeddings=True,
            initializer_range=0.1 if name == "teacher" else 0.02, bos_token_id=2, eos_token_id=1, pad_token_id=0,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    draw = random.Random(SEED)

    def text(length: int) -> str:
        return " ".join(f"w{int(draw.paretovariate(0.6)) % (vocabulary - 5)}" for _ in range(length))

    def row() -> dict[str, str]:
        if workload == "on_policy":
            return {"prompt": text(draw.randint(8, 24)), "response": text(8)}
        # mean 80 tokens with the prompt, at most 512
        length = min(LONGEST - 24, max(8, round(math.exp(draw.gauss(3.75, 0.85)))))
        return {"prompt": text(draw.randint(8, 24)), "response": text(length)}

    made = {"train": [row() for _ in range(rows)], "held_out": [row() for _ in range(24)]}
    (folder / "rows.json").write_text(json.dumps(made))


def held_out_kl(folder: Path, student: Path) -> float:
    """Mean forward KL to the teacher over the answer tokens of the held-out rows."""
    from transformers import AutoModelForCausalLM

    teacher, model = Teacher(folder / "teacher"), AutoModelForCausalLM.from_pretrained(student).eval()
    tokenizer, total, count = teacher.tokenizer(), 0.0, 0
    for row in json.loads((folder / "rows.json").read_text())["held_out"]:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        start = ids.index(tokenizer.convert_tokens_to_ids("<assistant>"))
        with torch.no_grad():
            log_p, log_q = (
                m(torch.tensor([ids])).logits[0, start:-1].log_softmax(-1) for m in (teacher.module(), model)
            )
        total += float((log_p.exp() * (log_p - log_q)).sum())
        count += len(ids) - 1 - start
    return total / count


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
