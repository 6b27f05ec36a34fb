"""`still export`: a student taken elsewhere, through the publish gate.

What is handed out is judged by the use that the recipe declares, on the day it is handed out. Duties that can be carried out
are carried out here (notices, bill of materials, cards); the rest is said, and nothing is written until it is met.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stillhouse.compliance.gates import enforce, publish_gaps
from stillhouse.compliance.lineage import branch_ends, branch_steps
from stillhouse.compliance.notices import notice_files
from stillhouse.compliance.watch import Watch
from stillhouse.errors import RecipeError, TermsRefused, nearest
from stillhouse.store import read_json
from stillhouse.terms import Terms, kept_terms

__all__ = ["FORMATS", "export"]

FORMATS = ("transformers",)
_LEFT_OUT = (".from", "adapter/")  # the adapter is in the weights, and names a folder of this machine
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")  # pieces of words, nobody's text
_TEXT = (".md", ".txt", ".json", ".jsonl", ".jinja", "")


def export(run: Path, target: Path, *, format: str = "transformers", add: Sequence[Path] = ()) -> Path:
    """Writes the student's folder, as `from_pretrained` loads it, with card, notices and bill of materials, to `target`.

    `add` are files that go with it (LICENSE, USE_RESTRICTIONS.md). Where the use distributes the data, the rows that branches
    end with lie in `data/`. Raises TermsRefused or TermsUnknown, and RecipeError where there is nothing to export or
    something is in the way.
    """
    if format not in FORMATS:
        raise RecipeError(f"--to {format}: no such format; {nearest(format, FORMATS)}")
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise RecipeError(f"{target}: there already; name a folder that is empty or can be made")
    terms = kept_terms(run)
    files = _files(run, terms, add)
    notices = _judged(run, terms, files)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name, source in files.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part / name)
    for name, text in notices.items():
        (part / name).write_text(text, encoding="utf-8")
    if target.exists():
        target.rmdir()
    part.rename(target)
    return target


def _files(run: Path, terms: Terms, add: Sequence[Path]) -> dict[str, Path]:
    """What is to be handed out: name in the folder -> where it lies now."""
    student, knowledge = run / "student", run / "knowledge"
    if read_json(run / "manifest.json")["state"] != "done":
        raise RecipeError(f"{run}: this run is not finished; run the recipe again, then export")
    if not (student / "config.json").is_file():
        raise RecipeError(f"{run}: no student in it; export takes a run that has trained one")
    found = {str(path.relative_to(student)): path for path in student.rglob("*") if path.is_file()}
    files = {name: path for name, path in found.items() if not name.startswith(_LEFT_OUT)}
    if terms.plan.use.outputs_published:
        ends = [
            path
            for steps in branch_steps(run).values()
            for end in branch_ends(steps)
            for path in end.parent.glob("out.*")
        ]
        files |= {f"data/{path.relative_to(knowledge)}": path for path in [*ends, knowledge / "README.md"]}
    for file in add:
        if not file.is_file():
            raise RecipeError(f"--add {file}: no such file")
        files[file.name] = file
    return files


def _judged(run: Path, terms: Terms, files: Mapping[str, Path]) -> dict[str, str]:
    """The publish gate. Returns where it opens, with the notices that the records ask for today and the run has not."""
    trained = read_json(run / "manifest.json")["screening"].get("pretrain")
    screening = ({"pretrain": trained} if trained else {}) | Watch().over("publish", _texts(files))
    told = {name: path for name, path in files.items() if path.suffix in (".md", ".txt", "")}
    texts = {name: path.read_text(encoding="utf-8", errors="replace") for name, path in told.items()}
    gaps: dict[str, None] = {}
    notices: dict[str, str] = {}
    for plan in (terms.plan, *terms.others):
        decision = terms.before_handing_out(screening, plan)
        enforce(decision, terms.registry)
        notices |= {name: text for name, text in notice_files(decision, terms.registry).items() if name not in files}
        gaps |= dict.fromkeys(publish_gaps(decision, plan, {**notices, **texts}, terms.registry))
    if gaps:
        listed = "".join(f"\n  - {gap}" for gap in gaps)
        raise TermsRefused(f"{run}: not handed out; what the terms ask for {plan.use.purpose} is not met:{listed}")
    return notices


def _texts(files: Mapping[str, Path]) -> Iterator[str]:
    for name, path in sorted(files.items()):
        if path.suffix in _TEXT and Path(name).name not in _VOCABULARY:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from lines
