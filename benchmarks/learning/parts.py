"""What the experiments are made of: the stories, models of random weights, and a recipe around them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.quiet import quiet

OWN = {"own_rights": "random weights of our own"}
CONTROLS = str(Path(__file__).parent / "controls.py")


@dataclass(frozen=True)
class Expectation:
    """Written down before the runs: on `metric` of `task`, `arm` is to be below (or above) `control`."""

    arm: str
    control: str
    metric: str
    task: str = "held_out"
    # `lower` or `higher`; `not`: a negative control, which must not be better; `near`: the interval lies within +-0.05;
    # `apart`: it does not, the control of such a test
    better: str = "lower"


@dataclass(frozen=True)
class Experiment:
    """`recipe(seed)` is run once per seed; every arm of a seed starts from the same weights."""

    question: str
    recipes: dict[int, dict[str, Any]]
    expected: list[Expectation] = field(default_factory=list)


def stories(data: Path, folder: Path) -> tuple[Path, Path]:
    """880 TinyStories to learn from and 120 others."""
    rows = json.loads((data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    learned, held_out = folder / "learned.json", folder / "held_out.json"
    folder.mkdir(parents=True, exist_ok=True)
    learned.write_text(json.dumps(rows[:880]), encoding="utf-8")
    held_out.write_text(json.dumps(rows[880:1000]), encoding="utf-8")
    return learned, held_out


def pieces(text: Path, path: Path, characters: int, start: int, count: int) -> Path:
    """`count` pieces of a book as a JSON list, from character `start` on."""
    whole = text.read_text(encoding="utf-8")[start:]
    path.write_text(
        json.dumps([whole[at * characters : (at + 1) * characters] for at in range(count)]), encoding="utf-8"
    )
    return path


def llama(folder: Path, tokenizer: Path, *, seed: int, width: int = 48, layers: int = 2) -> Path:
    """A Llama of random weights over the tokenizer's ids; 48 wide with two layers and 512 ids it has 86,304 weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    spoken = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(spoken),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 8,
        num_key_value_heads=width // 8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=spoken.bos_token_id,
        eos_token_id=spoken.eos_token_id,
        pad_token_id=0 if spoken.pad_token_id is None else spoken.pad_token_id,
    )
    with quiet():
        LlamaForCausalLM(config).save_pretrained(folder)
        spoken.save_pretrained(folder)
    return folder


def teacher(model: Path, terms: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"backend": "transformers", "model": str(model), "terms": terms or OWN}


def stories260k(data: Path) -> dict[str, Any]:
    return teacher(data / "stories260K" / "hf", {"record": "mit"})


def branch(path: Path, *, terms: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """Plain text in passages of at most 240 characters; the stories' terms where no others are given."""
    told = {"do": "texts", "path": str(path), "max_chars": 240, "terms": terms or {"record": "data.tinystories"}}
    return {"seeds": told, **rest}


def args(steps: int, *, rate: float = 4e-3, batch: int = 16, **rest: Any) -> dict[str, Any]:
    return {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "learning_rate": rate,
        "warmup_steps": min(50, steps // 10),
        "lr_scheduler_type": "linear",
        **rest,
    }


def phase(objectives: list[dict[str, Any]], args: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"train": {"objectives": objectives, "args": args, **rest}}


def recipe(name: str, seed: int, **parts: Any) -> dict[str, Any]:
    return {"name": name, "use": {"purpose": "research", "distributes": []}, "seed": seed, **parts}


def reads(path: Path, against: str | None, name: str = "held_out", window: int = 128) -> dict[str, Any]:
    told = {"do": "language_model", "name": name, "path": str(path), "window": window}
    return told | ({"teacher": against} if against else {})


def trained(folder: Path, told: dict[str, Any]) -> Path:
    """The one student of a recipe without arms, trained where it is not yet there."""
    from stillhouse import distill

    return distill(told, out=folder, quiet=True).path / "students" / "main" / str(told["seed"])


def begun(data: Path, folder: Path, seed: int, scale: float, *, by: str = "supervised.cross_entropy") -> Path:
    """A student that already speaks: 400 steps on the stories, from random weights of its own seed."""
    learned, _ = stories(data, folder)
    tokenizer = data / "stories260K" / "hf"
    online = {} if by.startswith("supervised") else {"teacher": "stories"}
    told = recipe(
        "start",
        seed,
        teachers={"stories": stories260k(data)} if online else {},
        knowledge={"stories": branch(learned)},
        student={"model": str(llama(folder / f"random-{seed}", tokenizer, seed=seed)), "terms": OWN},
        **phase([{"do": by, "on": "stories", **online}], args(int(400 * scale))),
    )
    return trained(folder / f"start-{seed}", told)


def continuations(learned: Path, path: Path, *, prompt: int = 100, rest: int = 240) -> Path:
    """The beginnings of the stories as prompts, cut after a word, and how they went on as references."""
    rows = []
    for text in json.loads(learned.read_text(encoding="utf-8")):
        story = text if isinstance(text, str) else text["text"]
        cut = story.rfind(" ", 0, prompt)
        rows.append({"prompt": story[:cut], "reference": story[cut : cut + rest]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
