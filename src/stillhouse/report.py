"""Run folder -> report."""

from pathlib import Path


def write_report(run: Path) -> Path:
    path = run / "report.html"
    path.write_text("<html></html>")
    return path
