"""Writes what was measured into the README of this folder and into the two model cards."""

from pathlib import Path

START, STOP = "<!-- table: written by make.py -->", "<!-- end of table -->"
CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {title}

{about}

Licence: Apache-2.0. Made by this repository (`tools/pocket/`), trained on {data}. No other model had a part in it.
The text is from books in the public domain: the Brontes, Darwin, Du Bois, Shakespeare.

{parameters:,} parameters, Llama architecture, 2,048 tokens, up to 1,024 positions (trained on sequences up to 512).
It is made for tests and demonstrations on a processor: it knows short, plain English of the kinds below and nothing else.

{table}

Each row: right answers on held-out items (wordings and combinations that training never saw), greedy, with the 95 %
Wilson interval. Commit `{commit}`, {hardware}, `{command}`, seed {seed}.
"""
ABOUT = {
    "teacher": (
        "Pocket teacher",
        "A small model that answers short word problems with written reasoning, and has ten further narrow skills.",
        "generated examples of its skills and public-domain text",
    ),
    "student": (
        "Pocket base student",
        "A base model with the teacher's tokenizer that has none of its skills: something to distil into.",
        "public-domain text only (four windows in ten repeat a short piece of it, which teaches copying)",
    ),
}


def table(skills: dict[str, dict[str, dict]]) -> str:
    """One row per skill: the teacher and the base student."""
    lines = ["| skill | items | teacher | 95 % interval | base student | 95 % interval |", "|---|---|---|---|---|---|"]
    for name, score in skills["teacher"].items():
        student = skills["student"][name]
        cells = (name, str(score["items"]), percent(score), interval(score), percent(student), interval(student))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(score: dict) -> str:
    return f"{100 * score['accuracy']:.1f}"


def interval(score: dict) -> str:
    low, high = score["interval"]
    return f"{100 * low:.1f}-{100 * high:.1f}"


def write(results: dict, shipped: Path, readme: Path) -> None:
    for name, (title, about, data) in ABOUT.items():
        parameters = results["parameters"][name]
        facts = {key: results[key] for key in ("commit", "hardware", "command", "seed")}
        text = CARD.format(
            title=title, about=about, data=data, parameters=parameters, table=table(results["skills"]), **facts
        )
        (shipped / name / "README.md").write_text(text, encoding="utf-8")
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    after = rest.partition(STOP)[2]
    readme.write_text(f"{before}{START}\n{table(results['skills'])}\n{STOP}{after}", encoding="utf-8")
