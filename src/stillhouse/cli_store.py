"""`still store`: looking after the store of answers."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look after the store of answers.", no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[
    Path | None, typer.Option("--store", help="The store's folder (default: STILLHOUSE_STORE or your cache folder).")
]


@app.command()
def verify(store: Folder = None) -> None:
    """Read the whole store: do its books balance, are its pages, files and signals sound? Exit code 1 where they are not."""
    from stillhouse.signals import upkeep as signals
    from stillhouse.teachers.asking import upkeep
    from stillhouse.teachers.asking.answers import default_store

    opened = upkeep.open_existing(store or default_store())
    problems = ([opened.recovered] if opened.recovered else []) + upkeep.verify(opened)
    problems += signals.verify(opened.folder / "signals")
    answers = opened.rows("SELECT count(*) FROM answer")[0][0]
    opened.close()
    for problem in problems:
        typer.echo(f"problem: {problem}")
    if not problems:
        typer.echo(f"{opened.path}: {answers} answers, the books balance")
    raise typer.Exit(1 if problems else 0)


@app.command()
def merge(
    other: Annotated[list[Path], typer.Argument(help="Folders of stores to take over.")], store: Folder = None
) -> None:
    """Take over everything that other stores have, signals too; they stay as they are."""
    from stillhouse.signals import upkeep as signals
    from stillhouse.teachers.asking import upkeep
    from stillhouse.teachers.asking.answers import AnswerStore, default_store

    into = AnswerStore(store or default_store())
    for folder in other:
        opened = upkeep.open_existing(folder)
        new = upkeep.merge(into, opened) | {
            "signals": signals.merge(into.folder / "signals", opened.folder / "signals")
        }
        opened.close()
        typer.echo(f"{folder}: " + ", ".join(f"{number} new {what}" for what, number in new.items()))
    into.close()


@app.command()
def export(file: Annotated[Path, typer.Argument(help="The JSONL file to write.")], store: Folder = None) -> None:
    """Write every request and its answer as JSONL."""
    from stillhouse.teachers.asking import upkeep
    from stillhouse.teachers.asking.answers import default_store

    opened = upkeep.open_existing(store or default_store())
    number = 0
    with file.open("w", encoding="utf-8") as out:
        for row in upkeep.export_rows(opened):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            number += 1
    opened.close()
    typer.echo(f"wrote {number} answers to {file}")


@app.command()
def gc(
    store: Folder = None,
    give_up_batches: Annotated[
        bool, typer.Option("--give-up-batches", help="Close batches that are out; asking again pays again.")
    ] = False,
) -> None:
    """Remove files that nothing names any more; answers and signals are never removed."""
    from stillhouse.signals import upkeep as signals
    from stillhouse.teachers.asking import upkeep
    from stillhouse.teachers.asking.answers import default_store

    opened = upkeep.open_existing(store or default_store())
    removed = upkeep.collect_garbage(opened, give_up_batches=give_up_batches)
    removed |= {"signal files": signals.collect_garbage(opened.folder / "signals")}
    opened.close()
    typer.echo(", ".join(f"{number} {what}" for what, number in removed.items()))
