"""Shipped recipes with the pocket teacher: what each keeps as it stands, and what students of some of them learn.

First every shipped recipe makes its knowledge from a few of its own seeds. The pocket teacher knows a dozen narrow skills, so
most keep little: the reasons are the result. Then the recipes of RUNS are given seeds that it knows (`tools/pocket`), and their
students are held against the base, against a control that had no teacher, and against the teacher, with the intervals of
the run's own comparison. Data: the demo's word problems, and items drawn by the generators of `tools/pocket/skills`.

    python benchmarks/recipes_pocket.py [NAME ...] [--as-shipped] [--rows 6] [--steps 150] [--work build/recipes_pocket]
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stillhouse import distill  # noqa: E402
from stillhouse.errors import StillhouseError  # noqa: E402
from stillhouse.pocket import teacher_path  # noqa: E402
from stillhouse.recipe import RECIPES, load_recipe, merged, shipped_recipes  # noqa: E402
from stillhouse.store import read_jsonl  # noqa: E402
from tools.pocket.item import Draw, Item  # noqa: E402
from tools.pocket.skills import classify, tools  # noqa: E402
from tools.pocket.skills.mistakes import mistaken  # noqa: E402
from tools.pocket.skills.stories import easy  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "recipes_pocket.json"
OWN = {"own_rights": "drawn by the generators of tools/pocket"}
PROBLEMS, HELD_OUT = RECIPES / "demo" / "seeds.jsonl", RECIPES / "demo" / "held_out.jsonl"
Change = dict[str, Any]


def args(steps: int, **more: Any) -> Change:
    """The demo's settings, for fewer steps."""
    settled = {
        "learning_rate": 4e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 15,
        "weight_decay": 0.01,
        "adam_beta2": 0.95,
    }
    return {"max_steps": steps, "per_device_train_batch_size": 12, **settled, **more}


def problems(limit: int = 200, **knobs: Any) -> Change:
    return {"do": "file", "path": str(PROBLEMS), "limit": limit, "terms": OWN, **knobs}


def asked(grader: str | Change, path: Path = HELD_OUT, **more: Any) -> list[Change]:
    return [
        {
            "do": "qa",
            "path": str(path),
            "grader": {"do": grader} if isinstance(grader, str) else grader,
            "max_new_tokens": 80,
            "limit": 80,
            **more,
        }
    ]


def gold(seeds: Change, template: str = "The answer is {reference}.") -> Change:
    """The control: the same prompts with their known answers, without a teacher."""
    return {"seeds": seeds, "elicit": [{"do": "labeling.reference", "template": template}], "select": []}


def arms(recipe: Change, steps: int, **more: Any) -> Change:
    """The recipe's own training as `taught`, and cross-entropy on `gold` for as many steps as `control`."""
    phases = recipe["train"] if isinstance(recipe["train"], list) else [recipe["train"]]
    taught = [{**phase, "args": args(steps, **more)} for phase in phases]
    control = {"objectives": [{"do": "supervised.cross_entropy", "on": "gold"}], "args": args(steps, **more)}
    return {"taught": {"train": taught}, "control": {"train": [control]}}


def step_by_step(recipe: Change, work: Path, steps: int) -> Change:
    control = gold(problems(template="predict: {{ prompt }}"), "{reference}")
    evaluate = asked("math.equal", template="predict: {{ prompt }}")
    return {
        "knowledge": {"steps": {"seeds": problems()}, "gold": control},
        "evaluate": evaluate,
        "arms": arms(recipe, steps),
    }


def on_problems(branch: str, **more: Any) -> Callable[[Change, Path, int], Change]:
    """A recipe whose `branch` takes the demo's word problems."""

    def change(recipe: Change, work: Path, steps: int) -> Change:
        branches = {branch: {"seeds": problems(), **more}, "gold": gold(problems())}
        return {"knowledge": branches, "evaluate": asked("math.equal", teacher="main"), "arms": arms(recipe, steps)}

    return change


def vote(recipe: Change, work: Path, steps: int) -> Change:
    """The selector stands against a draw by chance of as many rows."""
    entries = [{"do": "quality.vote", "at_least": 0.5, "against": "random"}, {"do": "dedup.exact"}]
    teacher = {"sampling": {"max_tokens": 80, "n": 4, "temperature": 1.0}}
    paths = {"seeds": problems(limit=120, reference=None), "select": entries}
    change = {"teachers": {"main": teacher}, "evaluate": asked("math.equal"), "arms": arms(recipe, steps)}
    return {**change, "knowledge": {"paths": paths, "gold": gold(problems(limit=120))}}


def asked_backwards(recipe: Change, work: Path, steps: int) -> Change:
    """Without the restated problems: of 60 the pocket teacher restated none with the answer in it."""
    seeds = problems(limit=60)
    branches: Change = {name: {"seeds": seeds} for name in ("answers", "reworded", "backward")}
    kept = [entry for entry in recipe["train"]["objectives"] if entry["on"] != "restated"]
    change = {"evaluate": asked("math.equal"), "arms": arms({"train": {"objectives": kept}}, steps)}
    return {**change, "knowledge": {**branches, "restated": None, "gold": gold(seeds)}}


def grow_and_improve(recipe: Change, work: Path, steps: int) -> Change:
    seeds = problems(limit=120)
    phases = [{**phase, "args": args(steps)} for phase in recipe["train"]]
    knowledge = {"taught": {"seeds": seeds}, "grown": {"seeds": seeds}}
    return {"knowledge": knowledge, "train": phases, "rounds": {"most": 2}, "evaluate": asked("math.equal")}


def conditioned(recipe: Change, work: Path, steps: int) -> Change:
    """One student, asked as an expert and as an amateur."""
    branches: Change = {name: {"seeds": problems()} for name in ("strong", "weak")}
    branches["gold"] = gold(problems())
    tasks = [
        {**asked("math.equal", template=f"{who}:\n\n{{{{ prompt }}}}")[0], "name": who.lower()}
        for who in ("Expert", "Amateur")
    ]
    return {"knowledge": branches, "evaluate": tasks, "arms": arms(recipe, steps)}


def context_distillation(recipe: Change, work: Path, steps: int) -> Change:
    """The context asks for the steps; the student's prompt does not."""
    first = {"do": "labeling.answer", "teacher": "main", "instruction": "Think step by step."}
    branch = {"seeds": problems(), "elicit": [first, recipe["knowledge"]["without"]["elicit"][1]]}
    knowledge = {"without": branch, "gold": gold(problems())}
    return {"knowledge": knowledge, "evaluate": asked("math.equal", teacher="main"), "arms": arms(recipe, steps)}


def relabelled(recipe: Change, work: Path, steps: int) -> Change:
    """Texts to classify, whose labels the teacher gives afresh."""
    seeds, held = drawn(work, classify.make, "classify")
    branches = {"tasks": {"seeds": seeds, "select": []}, "gold": gold(seeds, "{reference}")}
    evaluate = asked("text.exact", held, teacher="main", max_new_tokens=12)
    return {"knowledge": branches, "evaluate": evaluate, "arms": arms(recipe, steps)}


def tool_calls(recipe: Change, work: Path, steps: int) -> Change:
    def plain(draw: Draw) -> Item:
        return next(item for item in iter(lambda: tools.make(draw), None) if len(item.messages) == 2)

    seeds, held = drawn(work, plain, "tools", lambda item: "[]" if item.answer == tools.NONE else item.answer)
    knowledge = {
        "calls": {"seeds": seeds}, "gold": gold(drawn(work, plain, "spelled")[0], "{reference}")
    }  # fmt: skip
    grader = {"do": "function_call.match", "none": "No tool"}  # babble is no call either
    evaluate = asked(grader, held, teacher="main", max_new_tokens=48)
    return {"knowledge": knowledge, "evaluate": evaluate, "arms": arms(recipe, steps)}


def judge(recipe: Change, work: Path, steps: int) -> Change:
    votes = {name: work / f"votes_{name}.jsonl" for name in ("train", "held")}
    for (name, path), count in zip(votes.items(), (150, 100), strict=True):
        write(path, islice(pairs(Draw(5, held_out=name == "held", held_out_wordings=False)), count))
    own = recipe["knowledge"]["in_order"]["seeds"]
    branches: Change = {name: {"seeds": {"path": str(votes["train"])}} for name in ("in_order", "swapped")}
    seeds = {**own, "path": str(votes["train"])}
    branches["gold"] = gold(seeds, "{reference}")
    told = {"template": own["template"], "reference": own["reference"], "max_new_tokens": 6, "teacher": "main"}
    return {"knowledge": branches, "evaluate": asked("text.exact", votes["held"], **told), "arms": arms(recipe, steps)}


# the teacher's whole answers are what the student's own lose against: a bare number would teach silence
SPIN = [
    {"do": "labeling.answer", "teacher": "main"},
    {"do": "labeling.as_reference"},
    {"do": "self_knowledge.self_play", "teacher": "student", "sampling": {"max_tokens": 96}},
]
# in words that the pocket teacher knows: under the shipped instruction it kept 83 of 200
STAR = {
    "do": "self_knowledge.rationalise",
    "teacher": "main",
    "instruction": "Think step by step.",
    "hint": "The answer is {reference}. ",
    "grader": {"do": "math.equal"},
}


def preferred(branch: str, **knowledge: Any) -> Callable[[Change, Path, int], Change]:
    """A ranking recipe, started from the student of `context_distillation`, which is then the base it is compared with."""

    def change(recipe: Change, work: Path, steps: int) -> Change:
        phases = recipe["train"] if isinstance(recipe["train"], list) else [recipe["train"]]
        slow = args(max(steps // 3, 2), learning_rate=1e-4)
        return {
            "student": {
                "model": str(work / "skills-alignment-context_distillation" / "student"),
                "terms": {"record": "apache-2.0"},  # the pocket models', which made it
            },
            "teachers": recipe["teachers"] or {"main": {"backend": "pocket", "sampling": {"max_tokens": 80}}},
            "knowledge": {branch: {"seeds": problems(limit=120), **knowledge}},
            "train": [{**phase, "args": slow} for phase in phases],
            "evaluate": asked("math.equal"),
            "rounds": {"most": 2, "stop": {"accepted": 0.01, "length": 4}} if "rounds" in recipe else None,
        }

    return change


RUNS: dict[str, Callable[[Change, Path, int], Change]] = {
    "skills/alignment/context_distillation": context_distillation,
    "skills/alignment/self_play": preferred("played", elicit=SPIN),
    "skills/alignment/ranked_by_rule": preferred("assumed"),
    "skills/nlp/star": on_problems("bootstrapped", elicit=[STAR]),
    "skills/nlp/step_by_step": step_by_step,
    "skills/nlp/vote": vote,
    "skills/nlp/asked_backwards": asked_backwards,
    "skills/nlp/grow_and_improve": grow_and_improve,
    "skills/nlp/program_of_thought": on_problems("programs"),
    "skills/nlp/judge": judge,
    "skills/context_following/conditioned": conditioned,
    "skills/context_following/relabelled": relabelled,
    "skills/agent/tool_calls": tool_calls,
}


def drawn(
    work: Path,
    make: Callable[[Draw], Item],
    name: str,
    reference: Callable[[Item], str] = lambda item: item.answer,
    *,
    count: int = 300,
    held: int = 100,
) -> tuple[Change, Path]:
    """Seeds in wordings that the teacher was trained on, and held-out items in the same wordings with other contents."""
    paths = {False: work / f"{name}_seeds.jsonl", True: work / f"{name}_held_out.jsonl"}
    for is_held, path in paths.items():
        draw, rows = Draw(3, held_out=is_held, held_out_wordings=False), {}
        while len(rows) < (held if is_held else count):
            item = make(draw)
            rows.setdefault(str(item.prompt), {"prompt": item.prompt, "reference": reference(item)})
        write(path, rows.values())
    return {"do": "file", "path": str(paths[False]), "template": None, "reference": "reference", "terms": OWN}, paths[
        True
    ]


def pairs(draw: Draw) -> Iterable[Change]:
    """A right and a wrong solution in either order, with three equal votes."""
    while True:
        problem, first = easy(draw), draw.choice((1, 2))
        texts = [problem.reasoning, mistaken(draw, problem).reasoning]
        a, b = texts if first == 1 else texts[::-1]
        votes = {f"annotator{n}": first for n in (1, 2, 3)}
        yield {"instruction": problem.question, "input": "", "response1": a, "response2": b, **votes}


def write(path: Path, rows: Iterable[Change]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)} (default: all)")
    parser.add_argument("--as-shipped", action="store_true", help="only what recipes keep as they stand")
    parser.add_argument("--rows", type=int, default=4, help="seeds of each branch, as shipped")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "recipes_pocket")
    options = parser.parse_args()
    known = shipped() if options.as_shipped else list(RUNS)
    if unknown := set(options.names) - set(known):
        parser.error(f"no run named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("STILLHOUSE_STORE", str(work / "store"))
    told = about(options)
    if options.as_shipped or not options.names:
        for name in options.names if options.as_shipped and options.names else shipped():
            record("as_shipped", {name: {"teacher": told["teacher"], **as_shipped(name, work, options.rows)}}, told)
    for name in [] if options.as_shipped else options.names or RUNS:
        setting = {"teacher": told["teacher"], "steps": options.steps, "repeats": options.repeats}
        record("runs", {name: {**setting, **trained(name, work, options)}}, told)
    return 0


def shipped() -> list[str]:
    """Recipes that need nothing but the pocket teacher."""
    other = ("backend: recorded", "backend: run", "backend: transformers")
    return [name for name, path in shipped_recipes().items() if not any(each in path.read_text() for each in other)]


def as_shipped(name: str, work: Path, rows: int) -> Change:
    """Each branch by itself, as far as it comes."""
    data = load_recipe(name).data
    result = {}
    for branch, steps in data["knowledge"].items():
        alone = {key: value for key, value in data.items() if key in ("use", "teachers", "student", "seed")}
        one_round = {key: value for key, value in steps.items() if key != "carry"}
        alone |= {"name": "as-shipped", "knowledge": {branch: one_round}}
        out = work / "as_shipped" / f"{name.replace('/', '-')}-{branch}"
        result[branch] = attempted(lambda alone=alone, out=out: distill(alone, out=out, limit=rows, quiet=True), out)
    print(name, json.dumps(result), flush=True)
    return result


def trained(name: str, work: Path, options: argparse.Namespace) -> Change:
    recipe = load_recipe(name).data
    change = RUNS[name](recipe, work, options.steps)
    one_round: Change = {"rounds": None}  # unless the run says otherwise: each arm would go round by itself
    data = merged(merged(recipe, {**one_round, **change}), {"repeats": options.repeats, "name": name.replace("/", "-")})
    if "arms" in change:
        data.pop("train", None)
    out = work / name.replace("/", "-")
    result = attempted(lambda: distill(data, out=out, quiet=True), out)
    print(name, json.dumps(result), flush=True)
    return result


def attempted(run: Callable[[], Any], out: Path) -> Change:
    """What came out: rows by branch and scores, or the sentence with which it ended."""
    start = time.perf_counter()
    try:
        done = run()
        outcome: Change = {"state": done.manifest["state"]}
    except StillhouseError as error:
        outcome = {"state": type(error).__name__, "said": str(error).replace(str(ROOT), "")}
    outcome["branches"] = {path.name: counts(path) for path in sorted((out / "knowledge").glob("*")) if path.is_dir()}
    scores = out / "evaluate" / "scores.json"
    if scores.is_file():
        told = json.loads(scores.read_text(encoding="utf-8"))
        outcome |= {"scores": told["summary"], "differences": told["comparisons"]}
    return {**outcome, "seconds": round(time.perf_counter() - start, 1)}


def counts(branch: Path) -> Change:
    """Rows in and kept, and what was lost by step and reason; of several rounds the sum."""
    seeds = kept = 0
    lost: Counter[str] = Counter()
    for home in sorted(branch.glob("round-*")) or [branch]:
        steps = sorted(path for path in home.iterdir() if (path / "out.jsonl").is_file())
        if steps:
            seeds += lines(steps[0] / "out.jsonl")
            kept += lines(steps[-1] / "out.jsonl")
        for step in home.iterdir():
            if (step / "lost.jsonl").is_file():
                lost.update(f"{step.name}: {row['reason']}" for _, row in read_jsonl(step / "lost.jsonl"))
    return {"seeds": seeds, "kept": kept, "lost": dict(sorted(lost.items()))}


def lines(path: Path) -> int:
    return sum(1 for _ in open(path, "rb"))


def about(options: argparse.Namespace) -> Change:
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return {
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "command": f"benchmarks/recipes_pocket.py --rows {options.rows} --steps {options.steps} --repeats {options.repeats}",
        "hardware": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, one thread, busy with other work",
        "seed": 0,
        "teacher": hashlib.sha256((teacher_path() / "model.safetensors").read_bytes()).hexdigest()[:12],
        "date": datetime.now(UTC).date().isoformat(),
    }


def record(part: str, results: Change, told: Change) -> None:
    """Into the file as it is now: runs may be made one by one."""
    empty: Change = {"as_shipped": {}, "runs": {}}
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else empty
    found = {**found, **told, part: {**found[part], **results}}
    RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
