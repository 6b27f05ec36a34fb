"""Who can do what is asked of it: teachers and what they can tell, tokenizers, and stored beliefs and what reads them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.recipe import BASE_STUDENT, REFERENCE, STUDENT, Branch, Recipe, TeacherEntry
from stillhouse.resolve import Signature, backend_signature, backends, import_file, signature

RECORD_KINDS = ("Seed", "Example", "TopLogprobs", "StoredSignal", "Ranking", "Trajectory")
# the protocol that annotates an elicitor's `teacher` -> the capability a backend must state
CAPABILITY = {"Generates": "generate", "Scores": "top_logprobs", "Reveals": "logits"}
MEANING = {
    "generate": "answer prompts",
    "top_logprobs": "tell log-probs of given text",
    "logits": "give its logits (a local model)",
    "embed": "give vectors of texts",
}


def require(name: str, capability: str, recipe: Recipe, where: str) -> None:
    """Refuses a teacher that is not there or that cannot do what is needed, as its backend states it."""
    if name in (STUDENT, BASE_STUDENT):
        if recipe.student is None:
            raise RecipeError(f"{where}: `teacher: {name}` needs a `student:`")
        return
    if name not in recipe.teachers:
        raise RecipeError(f"{where}: no teacher {name!r}; {nearest(name, [*recipe.teachers, STUDENT])}")
    backend = recipe.teachers[name].backend
    if capability not in capabilities(backend):
        able = [each for each in backends() if capability in capabilities(each)]
        raise RecipeError(
            f"{where}: teacher {name!r} (backend {backend}) cannot {MEANING[capability]}; backends that can: {', '.join(able)}"
        )


def capabilities(backend: str) -> frozenset[str]:
    """What a backend states about itself; its module imports nothing heavy."""
    return frozenset(import_file(backend_signature(backend, where="teachers").path).Teacher.capabilities)


def comparable(found: Signature, name: str, recipe: Recipe, where: str) -> None:
    """A teacher with another tokenizer can be compared by some objectives, and only by those."""
    from stillhouse.train.batch import token_by_token

    if token_by_token(found.inputs):
        same_tokens(name, recipe, where)


def believed(branch: Branch, folder: Path, where: str) -> list[str]:
    """The teachers whose beliefs a branch ends with."""
    told: list[str] = []
    for entry in branch.elicit:
        kinds = record_kinds(signature("elicit", entry.do, folder=folder, where=where).returns)
        if {"TopLogprobs", "StoredSignal"} & set(kinds):
            told = [entry.teacher] if isinstance(entry.teacher, str) else list(entry.teacher or [])
    return told


# the forms of stored beliefs that an objective can read, by how it annotates `teacher_beliefs` (kernels.beliefs)
_READS = {"Beliefs": {"Dense", "TopK", "Sampled"}, "Distributions": {"Dense", "TopK"}, "Dense": {"Dense"}}
_ELICITED_BY = {"Dense": "hidden_states", "TopK": "top_k", "Sampled": "sampled_tokens"}


def stored_form(branch: Branch, folder: Path) -> str:
    """In which form the beliefs of a branch are stored: a class of kernels.beliefs, as its elicitor annotates it."""
    form = ""
    for entry in branch.elicit:
        words = re.findall(r"\w+", signature("elicit", entry.do, folder=folder, where="knowledge").returns)
        if "StoredSignal" in words:
            form = next((word for word in words if word in _ELICITED_BY), "")
        elif "TopLogprobs" in words:
            form = "TopK"
    return form


def form_fits(found: Signature, form: str, knobs: Mapping[str, Any], where: str) -> None:
    """Refuses beliefs stored in a form that an objective cannot be right on."""
    reads = _READS.get(found.annotations.get("teacher_beliefs", ""), set(_ELICITED_BY))
    if form and form not in reads:
        able = " or ".join(f"feature.{_ELICITED_BY[each]}" for each in sorted(reads))
        raise RecipeError(
            f"{where}: {found.name} cannot be right on beliefs stored by feature.{_ELICITED_BY[form]}; elicit {able}"
            + (", or use divergence.forward_kl" if form == "Sampled" else "")
        )
    if form in ("TopK", "Sampled") and float(knobs.get("temperature", 1.0)) != 1.0:
        raise RecipeError(
            f"{where}.temperature: beliefs stored by feature.{_ELICITED_BY[form]} are of temperature 1 and cannot be "
            "tempered; leave it out, or elicit feature.hidden_states"
        )


def same_tokens(name: str, recipe: Recipe, where: str) -> None:
    """Beliefs are about tokens: refuses a teacher and a student that cut text differently, where both lie on this disk."""
    if recipe.student is None or name in (STUDENT, BASE_STUDENT, REFERENCE):
        return
    theirs, ours = _teacher_folder(recipe.teachers[name]), _student_folder(recipe.student.model)
    if theirs is None or ours is None or tokenizer_of(theirs) == tokenizer_of(ours):
        return
    raise RecipeError(
        f"{where}: teacher {name!r} and the student cut text with different tokenizers, so their distributions cannot be "
        "compared token by token; take a student of the teacher's family, an objective that aligns text (a divergence, "
        "cross_tokenizer.*), or learn from the teacher's text alone"
    )


def _teacher_folder(entry: TeacherEntry) -> Path | None:
    """Where a teacher's tokenizer can be read without loading or fetching anything."""
    from stillhouse.pocket import teacher_path

    if entry.backend == "pocket":
        return teacher_path()
    if entry.backend == "run":
        return _folder(str(Path(str(entry.knobs["path"])) / "student"))
    return _folder(str(entry.knobs.get("model", "")))


def _student_folder(model: str) -> Path | None:
    from stillhouse.pocket import student_path

    return student_path() if model == "pocket" else _folder(model)


def _folder(name: str) -> Path | None:
    return Path(name) if name and (Path(name) / "config.json").is_file() else None


@lru_cache(maxsize=16)
def tokenizer_of(folder: Path) -> str:
    """The fingerprint of a local model's tokenizer."""
    from transformers import AutoTokenizer

    from stillhouse.render import fingerprint

    try:
        return fingerprint(AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder}: its tokenizer cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def record_kinds(annotation: str) -> list[str]:
    """The kinds of record that an annotation names; none where it takes any."""
    words = re.findall(r"\w+", annotation)
    if "Record" in words:
        return []
    return [word for word in words if word in RECORD_KINDS]
