"""`still terms`: what the records say about a plan, one record, all of them, and what a teacher touched in a run."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.errors import RecipeError, StillhouseError, TermsRefused, TermsUnknown

if TYPE_CHECKING:
    from stillhouse.compliance.registry import Registry

__all__ = ["app"]

app = typer.Typer(help="What the terms of teachers, data and weights say. Not legal advice.", no_args_is_help=True)

RegistryFile = Annotated[
    Path | None, typer.Option("--registry", help="A registry file instead of the one inside the package.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object (or list) on standard output and nothing else.")]
EXIT = {"refuse": TermsRefused.exit_code, "unknown": TermsUnknown.exit_code}


@contextmanager
def _said_in_one_sentence() -> Iterator[None]:
    try:
        yield
    except StillhouseError as e:
        typer.echo(str(e).encode("utf-8", "backslashreplace").decode(), err=True)
        raise typer.Exit(e.exit_code) from None


def _print(lines: list[str]) -> None:
    """For people: what ids and files hold is shown, and neither moves the cursor nor breaks the encoding."""
    plain = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    typer.echo("\n".join(plain))


@app.command()
def check(
    plan: Annotated[str, typer.Argument(help="A plan as JSON; - for standard input.", metavar="PLAN.json")],
    as_json: Json = False,
    ack: Annotated[list[Path] | None, typer.Option("--ack", help="An acknowledgment to apply.", metavar="FILE")] = None,
    registry: RegistryFile = None,
    signers: Annotated[
        Path | None, typer.Option(help="Allowed signers, as ssh-keygen reads them.", metavar="FILE")
    ] = None,
) -> None:
    """Permit, permit with obligations, unknown (exit 4) or refuse (exit 3), with clause, source and date."""
    from stillhouse.compliance import acknowledge, explain
    from stillhouse.compliance.evaluate import evaluate
    from stillhouse.compliance.gates import registry_for
    from stillhouse.compliance.plan import parse_plan

    with _said_in_one_sentence():
        today, folder = date.today(), Path() if plan == "-" else Path(plan).parent
        parsed = parse_plan(_json(plan), plan)
        known = registry_for(folder, _registry(registry, today))
        files = (signers,) if signers else acknowledge.signer_files(folder)
        acks = [acknowledge.read_acknowledgment(path, files) for path in ack or ()]
        decision = acknowledge.apply(evaluate(parsed, known, today), parsed, acks, today)
        if as_json:
            typer.echo(json.dumps(decision.as_dict()))
            for text in decision.ignored:
                typer.echo(f"acknowledgment {text}", err=True)
        else:
            _print(explain.lines(decision, known))
        raise typer.Exit(EXIT.get(decision.verdict, 0))


@app.command("list")
def list_records(as_json: Json = False, registry: RegistryFile = None) -> None:
    """Every record: what it says, for what, when it was read, and whether it is past its review date."""
    from stillhouse.compliance import explain

    with _said_in_one_sentence():
        known, today = _known(registry)
        if as_json:
            typer.echo(json.dumps([_short(r, today) for r in known.records]))
            return
        for r in known.records:
            read = f"read {r.read}" if r.read else "not read"
            past = " past review" if r.review_by and r.review_by < today else ""
            past = f" review by {r.review_by}" if explain.due_soon(r, today) else past
            speaks = ", ".join(p.match for p in r.models)
            typer.echo(
                f"{r.id:<44} {r.outputs_may_train:<11} {r.grade:<2} {read}{past}  {'/'.join(r.access)}: {speaks}"
            )
        if note := explain.ageing(today, known):
            typer.echo(note)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A record's id, or the id of a model or data set.")],
    as_json: Json = False,
    registry: RegistryFile = None,
) -> None:
    """One record whole, or every record that speaks of a model or data set."""
    from stillhouse.compliance import explain

    with _said_in_one_sentence():
        known, today = _known(registry)
        found = [known.by_id[name]] if name in known.by_id else list(known.speaking_of(name))
        if not found:
            near = get_close_matches(name, known.by_id, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "`still terms list` shows all"
            raise RecipeError(f"no record {name!r}, and none speaks of a model or data set of that name; {hint}")
        if as_json:
            rows = [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in found]
            typer.echo(json.dumps(rows))
            return
        _print([line for r in found for line in (*explain.record_lines(r, today), "")])


@app.command()
def taint(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    teacher: Annotated[str, typer.Option("--teacher", help="A teacher's name in the recipe, or its model id.")],
    as_json: Json = False,
) -> None:
    """Rows, data sets and students that a teacher touched, also through rows born from its rows."""
    from stillhouse.compliance.lineage import taint as touched

    with _said_in_one_sentence():
        found = touched(run, teacher)
        if as_json:
            typer.echo(json.dumps(found.as_dict()))
            return
        if not found.rows:
            typer.echo(f"{teacher}: no row of {run} comes from it")
        for step, ids in found.rows.items():
            typer.echo(f"{step}: {len(ids)} of {found.of[step]} rows")
        typer.echo(f"data sets: {', '.join(found.datasets) or 'none'}")
        typer.echo(f"students: {', '.join(found.students) or 'none'}")
        if found.students:
            typer.echo(f"to train without them: still run RECIPE --without-teacher {found.names[0]}")


def _json(plan: str) -> Any:
    try:
        if plan == "-" and sys.stdin is None:
            raise RecipeError("-: standard input is closed; pipe a plan into it, or give its path")
        read = sys.stdin.buffer.read() if plan == "-" else Path(plan).read_bytes()
        return json.loads(read.decode("utf-8-sig"), object_pairs_hook=_each_once)
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"{plan}: cannot be read ({e}); give the path of a plan, or -") from e
    except (ValueError, RecursionError) as e:
        raise RecipeError(f"{plan}: is not JSON ({e}); a plan is one JSON object") from e


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key written twice only the last would be judged."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == each for each, _ in pairs) > 1)
        raise ValueError(f"the key {twice!r} is written twice")
    return found


def _registry(path: Path | None, today: date) -> "Registry":
    from stillhouse.compliance.registry import builtin, load

    return load(path, today=today) if path else builtin()


def _known(path: Path | None) -> tuple["Registry", date]:
    from stillhouse.compliance.gates import registry_for

    today = date.today()
    return registry_for(Path(), _registry(path, today)), today


def _short(record: Any, today: date) -> dict[str, Any]:
    return {
        "id": record.id,
        "kind": record.kind,
        "holder": record.holder,
        "title": record.title,
        "outputs_may_train": record.outputs_may_train,
        "grade": record.grade,
        "access": list(record.access),
        "models": [p.match for p in record.models],
        "read": str(record.read) if record.read else None,
        "review_by": str(record.review_by) if record.review_by else None,
        "past_review": bool(record.review_by and record.review_by < today),
        "origin": record.origin,
    }
