"""C3: bytes per token of stored signals at equal fidelity, and how fast they are read back.

Beside our forms: the naive top-64 (bfloat16 and int32) and the two formats that DistillKit's README recommends,
re-implemented here from that description (its package is on no index): sorted log-probabilities, the first `exact_k` in bfloat16,
the others by a least-squares curve whose coefficients are kept in float32, ids packed in ceil(log2 V) bits. What they
decode to is given the exact tail, which is kinder than their own handling of it. Fidelity is KL(teacher || decoded),
tail spread evenly, and the cosine of a student's gradient with that of the whole distribution.

    python benchmarks/signals_size.py --data DATA      (DATA: the folder of test inputs)
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.elicit import feature
from stillhouse.pocket import student_path, teacher_path
from stillhouse.records import Example, StoredSignal, content_id, user
from stillhouse.render import Rendered, addressable, render
from stillhouse.signals.beliefs import Head, StoredSignals, beliefs_of
from stillhouse.signals.bits import padded
from stillhouse.signals.codecs import Draws, Kept
from stillhouse.signals.fidelity import kl_error
from stillhouse.signals.measure import Gradients, way
from stillhouse.signals.store import ENTRY
from stillhouse.signals.taking import head_of, scale_of
from stillhouse.teachers.forced import forced
from stillhouse.teachers.transformers import Teacher

HERE = Path(__file__).resolve().parent
SEED = 0
PEERS = {
    "naive top-64, bfloat16 and int32": {"k": 64, "exact": 64, "terms": ()},
    "DistillKit recommended (k 128)": {"k": 128, "exact": 16, "terms": (0, 1, 2, 3, 4, "sqrt")},
    "DistillKit budget (k 50)": {"k": 50, "exact": 1, "terms": (0, 1, "sqrt")},
}
_KEPT = [(k, least) for k in (50, 64, 128, 192) for least in (0.0, 1e-5, 2e-5, 3e-5, 1e-4, 1e-3, 3e-3)]
OURS: list[tuple[str, dict[str, Any]]] = [
    *(("feature.top_k", {"k": k, "least": least}) for k, least in _KEPT),
    *(("feature.sampled_tokens", {"draws": draws}) for draws in (12, 50)),
    *(("feature.hidden_states", {"dtype": dtype}) for dtype in ("bfloat16", "int8")),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("STILLHOUSE_TEST_DATA"), help="default: $STILLHOUSE_TEST_DATA"
    )
    parser.add_argument("--tokens", type=int, default=2_500, help="looked at for fidelity")
    parser.add_argument("--read", type=int, default=20_000, help="stored and read back")
    parser.add_argument("--teacher", type=Path, help="one more teacher: a folder with a tokenizer")
    parser.add_argument("--student", type=Path, help="its student")
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the stories are: --data DIR, or set STILLHOUSE_TEST_DATA")
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    stories = options.data / "stories260K" / "hf"
    texts = json.loads((options.data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    texts = [text if isinstance(text, str) else text["text"] for text in texts]
    settings = [
        ("stories260K", stories, None, [Example(content_id(text), (), text[:600]) for text in texts]),
        ("pocket", teacher_path(), student_path(), _problems()),
    ]
    if options.teacher:
        settings.append((options.teacher.name, options.teacher, options.student, settings[0][3]))
    found = {name: setting(*paths, options.tokens, options.read) for name, *paths in settings}
    for name, told in found.items():
        _print(name, told)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    result = {
        "benchmark": "C3: bytes per token of stored signals at equal fidelity",
        "command": " ".join(["python", "benchmarks/signals_size.py", *sys.argv[1:]]).replace(str(options.data), "DATA"),
        "commit": commit or "none",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "threads": 1, "load": os.getloadavg()[0]},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "numpy")},
        "seed": SEED,
        "targets": {
            "against DistillKit at its KL": 2.2,
            "samples against naive top-64": 12.0,
            "read tokens per second": 200_000,
        },
        "note": "DistillKit's formats are re-implemented from its README; sizes at other vocabularies follow from ceil(log2 V)",
        "teachers": found,
    }
    path = HERE / "results" / "signals_size.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _problems() -> list[Example]:
    """The demo's questions with an answer in words: not the teacher's own text, so that it is not certain of it."""
    from stillhouse.recipe import RECIPES

    rows = [json.loads(line) for line in (RECIPES / "demo" / "seeds.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Example(content_id(row), user(row["prompt"]), f"Let us see. {row['prompt']} That makes {row['reference']}.")
        for row in rows
    ]


def setting(folder: Path, student: Path | None, examples: list[Example], tokens: int, read: int) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    teacher = Teacher(model=folder)
    model, tokenizer = teacher.module(), teacher.tokenizer()
    width = addressable(tokenizer)
    if student is not None:
        learner = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    else:
        learner = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=width, hidden_size=48, intermediate_size=128, num_hidden_layers=2, num_attention_heads=6
            )
        )
    rows: list[Rendered] = []
    for one in examples:
        if sum(len(row.response) for row in rows) >= tokens:
            break
        rows.append(render(tokenizer, one.prompt, one.response))
    taken = list(
        forced(model, tokenizer, rows, lambda _, logits, hidden: (logits[:, :width].float(), hidden), hidden=True)
    )
    logits_NV = torch.cat([logits for logits, _ in taken])
    gradients = Gradients(learner, tokenizer, rows, logits_NV)
    total = len(logits_NV)
    peers = {name: _peer(logits_NV, width, gradients, **how) for name, how in PEERS.items() if how["k"] < width}
    ours = []
    for do, knobs in OURS:
        if knobs.get("k", 0) >= width:
            continue
        codec, each = way(do, knobs, rows, [logits for logits, _ in taken], [hidden for _, hidden in taken], width)
        encoded = [codec.encode(one) for one in each]
        sizes = np.array([len(row) for row in encoded])
        ends = np.cumsum(sizes)
        back = codec.decode(
            padded(b"".join(encoded)), ends - sizes, ends, np.array([len(row.response) for row in rows])
        )
        head = Head(head_of(model), scale_of(head_of(model), *taken[0])) if do == "feature.hidden_states" else None
        cosine, norm = gradients.against(beliefs_of(back, head, vocabulary=width))
        size = (int(sizes.sum()) + ENTRY.itemsize * len(rows)) / total
        kept = round(float(back.counts_N.mean()), 2) if isinstance(back, Kept | Draws) else None
        ours.append(
            {"do": do, "knobs": knobs, "bytes_per_token": round(size, 2), "kl": kl_error(logits_NV, back, head),
             "cosine": cosine, "norm": norm, "tokens_kept": kept}
        )  # fmt: skip
    return {
        "vocabulary": width, "tokens": total, "peers": peers, "ours": ours, "at_equal_fidelity": _ratios(peers, ours),
        "read": _read(teacher, examples, read),
    }  # fmt: skip


def _peer(
    logits_NV: torch.Tensor, width: int, gradients: Gradients, *, k: int, exact: int, terms: tuple
) -> dict[str, Any]:
    logprobs_NK, ids_NK = logits_NV.log_softmax(-1).topk(k, dim=-1)
    decoded_NK = logprobs_NK.bfloat16().float()
    # int32 ids where nothing is packed
    id_bits = 32 if not terms else int(width - 1).bit_length()
    if terms:
        place_K = torch.linspace(0, 1, k - exact, dtype=torch.float64)
        basis_KC = torch.stack([place_K.sqrt() if term == "sqrt" else place_K**term for term in terms], -1)
        fitted = torch.linalg.lstsq(basis_KC, logprobs_NK[:, exact:].double().T).solution.float().double()
        decoded_NK[:, exact:] = (basis_KC @ fitted).T.float()
    size = k * id_bits / 8 + 2 * exact + 4 * len(terms)
    # never more than the whole
    decoded_NK = decoded_NK - decoded_NK.logsumexp(-1, keepdim=True).clamp(min=0)
    read = Kept(np.full(len(ids_NK), k), ids_NK.flatten().numpy(), decoded_NK.flatten().numpy())
    cosine, norm = gradients.against(beliefs_of(read, None, vocabulary=width))
    return {"bytes_per_token": size, "kl": kl_error(logits_NV, read, None), "cosine": cosine, "norm": norm}


def _ratios(peers: dict[str, Any], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """Per peer: our smallest top-k at its KL or less; our smallest of any form with a gradient as near (samples in a batch)."""
    found = {}
    for name, peer in peers.items():
        top = [one for one in ours if one["do"] == "feature.top_k" and one["kl"] <= peer["kl"]]
        states = [one for one in ours if one["do"] == "feature.hidden_states" and one["kl"] <= peer["kl"]]
        drawn = next(one for one in ours if one["knobs"].get("draws") == 50)
        found[name] = {
            "top_k": _best(top, peer), "hidden_states": _best(states, peer),
            "samples (50 draws)": {"ratio": round(peer["bytes_per_token"] / drawn["bytes_per_token"], 2), **drawn},
        }  # fmt: skip
    return found


def _best(candidates: list[dict[str, Any]], peer: dict[str, Any]) -> dict[str, Any] | None:
    if not candidates:
        return None
    best = min(candidates, key=lambda one: one["bytes_per_token"])
    return {"ratio": round(peer["bytes_per_token"] / best["bytes_per_token"], 2), **best}


def _read(teacher: Teacher, examples: list[Example], tokens: int) -> dict[str, Any]:
    """Batches of 64 rows in random order, to tensors; the median of five passes, by the processor's time of this one thread."""
    tokenizer, found = teacher.tokenizer(), {}
    responses, chosen = [], []
    while sum(map(len, responses)) < tokens and len(chosen) < len(examples):
        one = examples[len(chosen)]
        responses.append(render(tokenizer, one.prompt, one.response).response)
        chosen.append(one)
    order = np.random.default_rng(SEED).permutation(len(chosen))
    for name, elicit, knobs in (
        ("top_k 64", feature.top_k, {"k": 64}),
        ("top_k 128, least 1e-4", feature.top_k, {"k": 128, "least": 1e-4}),
        ("samples, 50 draws", feature.sampled_tokens, {"draws": 50}),
        ("hidden states, int8", feature.hidden_states, {"dtype": "int8"}),
    ):
        with tempfile.TemporaryDirectory() as home:
            os.environ["STILLHOUSE_STORE"] = home
            records = [one for one in elicit(chosen, teacher, **knobs) if isinstance(one, StoredSignal)]
            signals = StoredSignals("here", Path(records[0].store), [one.row for one in records], responses, tokenizer)
            rates = []
            for _ in range(5):
                began, count = time.process_time(), 0
                for start in range(0, len(order), 64):
                    count += signals.beliefs(order[start : start + 64], vocabulary=addressable(tokenizer)).positions
                rates.append(count / (time.process_time() - began))
            found[name] = {
                "tokens_per_second": round(float(np.median(rates))),
                "told": signals.told()["bytes_per_token"],
            }
    return {"tokens": sum(map(len, responses)), "load": os.getloadavg()[0], **found}


def _print(name: str, told: dict[str, Any]) -> None:
    print(f"{name}: {told['vocabulary']} ids, {told['tokens']} tokens")
    for peer, numbers in told["peers"].items():
        print(f"  {peer}: {numbers['bytes_per_token']:.0f} B, KL {numbers['kl']:.5f}, cosine {numbers['cosine']}")
        for kind, ours in told["at_equal_fidelity"][peer].items():
            if ours is not None:
                size = f"{ours['bytes_per_token']} B, KL {ours['kl']}, cosine {ours['cosine']}"
                print(f"    {ours['ratio']:5.2f}x  {kind} {ours['knobs']}: {size}")
    print(f"  read: {told['read']}")


if __name__ == "__main__":
    sys.exit(main())
