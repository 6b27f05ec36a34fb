"""The command line: a command is ten lines; what is heavy is imported inside the command that needs it."""

import json
import shlex
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stillhouse.cli_measure import app as measure
from stillhouse.cli_store import app as store
from stillhouse.cli_terms import RegistryFile
from stillhouse.cli_terms import app as terms
from stillhouse.errors import BudgetReached, RecipeError, StillhouseError
from stillhouse.launch import said, with_environment

app = typer.Typer(
    name="still",
    help="Distils large language models into small ones: seeds and a teacher in; a trained, measured student out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(terms, name="terms")
app.add_typer(store, name="store")
app.add_typer(measure, name="measure")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N seeds and questions.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, for example runs/NAME.")]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("runs/demo"),
    limit: Limit = None,
) -> None:
    """Distil the embedded teacher into a student and measure whether it helped."""
    _run("demo", [], out, limit, None)


@app.command()
def new(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe; left out: the list of them.")] = None,
    file: Annotated[Path | None, typer.Argument(help="The file to write (default: NAME.yaml here).")] = None,
) -> None:
    """Copy a shipped recipe, with the files it names, to start from."""
    from stillhouse.copying import copy_recipe
    from stillhouse.recipe import shipped_recipes

    if recipe is None:
        _lines(f"{name}" for name in shipped_recipes())
        return
    for path in copy_recipe(recipe, file):
        typer.echo(f"wrote {path}")


@app.command("list")
def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="elicit, select, graders, objectives, evaluate, seeds, teachers or recipes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What there is to name in a recipe, with a line about each."""
    from stillhouse.catalogue import catalogue

    found = catalogue(kind)
    if as_json:
        _json(found)
        return
    for title, rows in found.items():
        typer.echo(f"{title}:")
        _lines(f"  {name:<34} {summary}" for name, summary in rows.items())


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="A name as a recipe writes it, for example labeling.reason.")],
    as_json: Json = False,
) -> None:
    """What a name does: its docstring, its knobs with their defaults, where its source lies."""
    from stillhouse.catalogue import explained

    found = explained(name)
    if as_json:
        _json(found)
        return
    for each in found:
        typer.echo(f"{each['kind']}: {each['name']}    ({each['source']})\n\n{each['doc']}\n")
        typer.echo(f"reads: {', '.join(each['reads']) or 'nothing'}\nknobs:")
        _lines(f"  {knob}: {text}" for knob, text in each["knobs"].items())


@app.command()
def schema() -> None:
    """The JSON schema of a recipe, for editors."""
    from stillhouse.recipe import Recipe

    _json(Recipe.model_json_schema())


@app.command()
def check(
    recipe: RecipeName,
    changes: Changes = None,
    limit: Limit = None,
    as_json: Json = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Load teacher and student and look at them on this data.")
    ] = False,
    registry: RegistryFile = None,
) -> None:
    """Refuse what cannot be right before anything is spent; print the plan."""
    from dataclasses import asdict

    from stillhouse.catalogue import plan_lines
    from stillhouse.check import check as check_recipe
    from stillhouse.estimate import estimate
    from stillhouse.recipe import load_recipe
    from stillhouse.terms import terms_of

    loaded = load_recipe(recipe, changes or [])
    plan = asdict(check_recipe(loaded, limit=limit))
    plan["terms"] = terms_of(loaded, registry_file=registry).before_spending()
    plan["estimate"] = (told := estimate(loaded, limit=limit)).as_dict()
    looked = None
    if deep:
        from stillhouse.preflight.deep import deep as look

        looked = look(loaded)
    if as_json:
        _json(plan | ({"deep": looked.as_dict()} if looked else {}))
    else:
        _lines(plan_lines(plan))
        _lines(told.texts())
        _lines(looked.lines(colour=sys.stdout.isatty()) if looked else ())
    if looked and looked.refused:
        raise RecipeError(looked.refused[0].text)


@app.command()
def run(
    recipe: RecipeName,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Where the run goes (default: runs/NAME).")] = None,
    limit: Limit = None,
    budget: Annotated[str | None, typer.Option(help="Stop before spending more: 5usd, 2Mtok, 1000requests.")] = None,
    without_teacher: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Train without a teacher's rows.")
    ] = None,
    registry: RegistryFile = None,
    on: Annotated[
        Literal["ray"] | None, typer.Option(help="Where local teachers generate: ray, a cluster (RAY_ADDRESS).")
    ] = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(metavar="REASON", help="Ask once more what failed so: truncated, empty, transient."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run although it may cost more than 10 dollars.")] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe; the same command again resumes it."""
    again, without = tuple(retry or ()), tuple(without_teacher or ())
    _run(recipe, changes or [], out, limit, budget, without, registry, on, again, yes=yes, as_json=as_json)


@app.command()
def report(run: RunFolder, as_json: Json = False) -> None:
    """Write the report and the cards of a run again, and say where they are."""
    from stillhouse.report import write_report
    from stillhouse.run import load_run

    written = str(write_report(load_run(run).path))
    _json({"report": written}) if as_json else typer.echo(written)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run or more.")], as_json: Json = False
) -> None:
    """The scores of runs side by side, with 95 % intervals."""
    from stillhouse.catalogue import compared, score_lines
    from stillhouse.run import load_run

    found = compared([load_run(path) for path in runs])
    if as_json:
        _json(found)
    else:
        _lines(score_lines(found))


@app.command()
def why(
    run: RunFolder,
    row: Annotated[str, typer.Argument(help="The id of a row, or the beginning of one.")],
    as_json: Json = False,
) -> None:
    """One row's trail: from its seed through every step to where it was kept or lost."""
    from stillhouse.books import why as trail
    from stillhouse.catalogue import trail_lines
    from stillhouse.run import load_run

    found = trail(load_run(run).path, row)
    if as_json:
        _json(found)
    else:
        _lines(trail_lines(found))


@app.command()
def audit(run: RunFolder, as_json: Json = False) -> None:
    """Recount a run: does every row that went into a step come out of it, kept or lost?"""
    from stillhouse.books import audit as recount
    from stillhouse.run import load_run

    found = recount(load_run(run).path)
    if as_json:
        _json(found)
    else:
        _lines(
            f"{row['step']:<44} in {row['in']:>7}  kept {row['kept']:>7}  lost {sum(row['lost'].values()):>7}"
            for row in found["steps"]
        )
        _lines(f"note: {note}" for note in found["notes"])
        _lines([f"problem: {problem}" for problem in found["problems"]] or ["the books balance"])
    raise typer.Exit(0 if found["balanced"] else 1)


@app.command()
def cost(run: RunFolder, as_json: Json = False) -> None:
    """What each teacher cost in a run, and what a kept row cost, by the attempts in the store."""
    from stillhouse.catalogue import cost_lines
    from stillhouse.costs import cost_of
    from stillhouse.run import load_run

    found = cost_of(load_run(run).path)
    if as_json:
        _json(found)
    else:
        _lines(cost_lines(found))


@app.command()
def chat(run: RunFolder) -> None:
    """Talk to the student of a run (an empty line ends it)."""
    from stillhouse.chatting import chat as talk
    from stillhouse.run import load_run

    talk(load_run(run).student)


@app.command()
def export(
    run: RunFolder,
    target: Annotated[Path | None, typer.Argument(metavar="DEST", help="A new folder (default: RUN/export).")] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="transformers: what from_pretrained loads.")
    ] = "transformers",
    add: Annotated[
        list[Path] | None, typer.Option("--add", metavar="FILE", help="A file that goes with it, such as LICENSE.")
    ] = None,
) -> None:
    """Take a student elsewhere: weights, tokenizer, card, notices and bill of materials, through the publish gate."""
    from stillhouse.compliance.plan import ALWAYS_DISTRIBUTED
    from stillhouse.exporting import export as take
    from stillhouse.run import load_run

    found = load_run(run)
    done = take(found.path, target or found.path / "export", format=to, add=add or ())
    use = found.manifest["use"]
    out = dict.fromkeys((*ALWAYS_DISTRIBUTED.get(use["purpose"], ()), *use["distributes"]))
    typer.echo(f"{done}: judged for {use['purpose']}, handing out {', '.join(out) or 'nothing declared'}")


def _run(
    recipe: str,
    changes: list[str],
    out: Path | None,
    limit: int | None,
    budget: str | None,
    without: tuple[str, ...] = (),
    registry: Path | None = None,
    on: Literal["ray"] | None = None,
    retry: tuple[str, ...] = (),
    *,
    yes: bool = False,
    as_json: bool = False,
) -> None:
    from stillhouse.catalogue import compared, score_lines
    from stillhouse.check import check as check_recipe
    from stillhouse.costs import ask_first
    from stillhouse.estimate import estimate
    from stillhouse.recipe import load_recipe
    from stillhouse.run import Options, execute

    if (told := said()) is not None:
        typer.echo(told, err=True)
    command = " ".join(["still", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()
    options = Options(
        limit=limit, budget=budget, without=without, registry=registry, command=command, on=on, retry=retry
    )
    loaded = load_recipe(recipe, changes)
    check_recipe(loaded, limit=1)  # every name and knob; the seeds are counted when it runs
    expected = estimate(loaded, limit=limit)
    if not yes:
        own = {name for name, teacher in loaded.recipe.teachers.items() if teacher.budget}
        ask_first(expected, limited=bool(budget or loaded.recipe.budget) or expected.asked <= own)
    if expected.worst_usd:
        typer.echo(expected.total(), err=True)
    done = execute(loaded, out, options)
    if as_json:
        _json({"run": str(done.path), "report": str(done.report), **compared([done])})
        return
    if done.scores["summary"]:
        _lines(score_lines(compared([done])))
    typer.echo(f"report: {done.report}")


def _lines(lines: Any) -> None:
    for line in lines:
        typer.echo(line)


def _json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def _with(option: str) -> str:
    """This command with another budget."""
    given, kept = sys.argv[1:], list[str]()
    while given:
        word = given.pop(0)
        if word == "--budget" and option.startswith("--budget"):
            given = given[1:]
        elif not (word.startswith("--budget=") and option.startswith("--budget")):
            kept.append(word)
    return f"still {shlex.join(kept)} {option}"


# typer raises its own copy of click's mistakes, older ones those of click itself
_Misused: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Runs the command line. An error that a person can act on is one sentence and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal of another encoding, a file name that is no text
            stream.reconfigure(errors="backslashreplace")
    with_environment(sys.argv[1:])
    try:
        code = app(prog_name="still", standalone_mode=False)  # what a command exits with comes back as a number
    except StillhouseError as error:
        typer.echo(f"still: {error}", err=True)
        if isinstance(error, BudgetReached) and error.larger:
            typer.echo(f"still: for example: {_with(error.larger)}", err=True)
        code = error.exit_code
    except _Misused as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except OSError as error:
        if not error.strerror:  # libraries raise it for what is no file's fault
            raise
        typer.echo(f"still: {error.filename or 'the output'}: {error.strerror}; see that it can be used", err=True)
        code = 1
    if code == 130:
        typer.echo("still: interrupted; the same command again goes on from here", err=True)
    sys.exit(code or 0)
