"""The small teacher and the base student that ship with the package: their folders, and nothing else."""

from pathlib import Path

FOLDER = Path(__file__).parent


def teacher_path() -> Path:
    """A folder for `from_pretrained`: knows the skills in tools/pocket."""
    return FOLDER / "teacher"


def student_path() -> Path:
    """A folder for `from_pretrained`: the teacher's tokenizer, trained on plain text only."""
    return FOLDER / "student"
