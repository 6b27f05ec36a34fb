"""`still export`: a student taken elsewhere, through the publish gate.

What is handed out is judged by the use that the recipe declares, on the day it is handed out. Duties that can be carried out
are carried out here (notices, bill of materials, cards); the rest is said, and nothing is written until it is met.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from stillhouse.compliance.gates import enforce, publish_gaps
from stillhouse.compliance.lineage import branch_steps
from stillhouse.compliance.notices import notice_files
from stillhouse.compliance.watch import Watch
from stillhouse.errors import RecipeError, TermsRefused, nearest
from stillhouse.store import read_json
from stillhouse.terms import kept_terms

__all__ = ["FORMATS", "export"]

FORMATS = ("transformers",)
_LEFT_OUT = (".from", "*.part")
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
    student = run / "student"
    if not (student / "config.json").is_file():
        raise RecipeError(f"{run}: no student in it; export takes a run that has trained one")
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise RecipeError(f"{target}: there already; name a folder that is empty or can be made")
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _filled(run, part, add)
        _opened(run, part)
        target.rmdir() if target.exists() else None
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _filled(run: Path, part: Path, add: Sequence[Path]) -> None:
    shutil.copytree(run / "student", part, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    terms = kept_terms(run)
    if terms.plan.use.outputs_published:
        for files in branch_steps(run).values():
            home = part / "data" / files[-1].parent.relative_to(run / "knowledge")
            home.mkdir(parents=True)
            for file in files[-1].parent.glob("out.*"):
                shutil.copy2(file, home)
        shutil.copy2(run / "knowledge" / "README.md", part / "data")
    for file in add:
        if not file.is_file():
            raise RecipeError(f"--add {file}: no such file")
        shutil.copy2(file, part)


def _opened(run: Path, part: Path) -> None:
    """The publish gate over what lies in `part`. Returns where it opens."""
    terms = kept_terms(run)
    trained = {"pretrain": found} if (found := read_json(run / "manifest.json")["screening"].get("pretrain")) else {}
    screening = trained | Watch().over("publish", _texts(part))
    decision = terms.before_handing_out(screening)
    enforce(decision, terms.registry)
    for name, text in notice_files(decision, terms.registry).items():
        if not (part / name).is_file():  # the records may ask for more than on the day of the run
            (part / name).write_text(text, encoding="utf-8")
    told = [path for path in part.iterdir() if path.is_file() and path.suffix in (".md", ".txt", "")]
    texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in told}
    if gaps := publish_gaps(decision, terms.plan, texts, terms.registry):
        listed = "".join(f"\n  - {gap}" for gap in gaps)
        raise TermsRefused(
            f"{run}: not handed out; what the terms ask for {terms.plan.use.purpose} is not met:{listed}"
        )


def _texts(part: Path) -> Iterator[str]:
    for path in sorted(part.rglob("*")):
        if path.is_file() and path.suffix in _TEXT and path.name not in _VOCABULARY:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from lines
