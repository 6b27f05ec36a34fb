"""`still measure`: numbers to choose by, from the recipe's own teacher and data, before anything is run."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

app = typer.Typer(help="Measure what a recipe could choose between.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Keeps `signals` a subcommand while it is the only one."""


@app.command()
def signals(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")],
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of it.")] = None,
    branch: Annotated[str | None, typer.Option(help="Whose texts (default: the one learned with the teacher).")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Which teacher (default: the one whose beliefs are learned).")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many texts or prompts.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Bytes per token against fidelity of the ways to store this teacher's beliefs about this data."""
    from stillhouse.check import check
    from stillhouse.probing import fitting, probing, student_of
    from stillhouse.recipe import load_recipe
    from stillhouse.render import fingerprint
    from stillhouse.signals.measure import measured
    from stillhouse.terms import terms_of

    loaded = load_recipe(recipe, changes or [])
    check(loaded)
    terms_of(loaded).before_spending()
    with probing(loaded, branch=branch, teacher=teacher, rows=rows) as probe:
        model, tokenizer = probe.backend.module(), probe.backend.tokenizer()
        rendered = fitting(probe.examples, tokenizer, model)
        own = student_of(loaded)
        alike = own is not None and fingerprint(own.tokenizer) == fingerprint(tokenizer)
        student = own.model if own is not None and alike else None
        found = [one.as_dict() for one in measured(rendered, model, student, tokenizer)]
        tokens = sum(len(row.response) for row in rendered)
        told: dict[str, Any] = {"branch": probe.branch, "teacher": probe.teacher, "answered_by": probe.answered_by}
    told |= {"rows": len(rendered), "tokens": tokens, "gradients": student is not None, "measured": found}
    if as_json:
        typer.echo(json.dumps(told, indent=1))
    else:
        for line in _lines(told):
            typer.echo(line)


def _lines(told: dict[str, Any]) -> Iterator[str]:
    whose = "the data's own text" if told["answered_by"] == "data" else f"answers of {told['answered_by']}"
    yield f"teacher {told['teacher']} on {told['rows']} rows of {told['branch']} ({told['tokens']} tokens, {whose})"
    yield f"{'':2}{'':46}{'bytes/token':>12}{'KL error':>10}{'cosine':>9}{'norm':>8}{'kept':>7}"
    for one, best in zip(told["measured"], _undominated(told["measured"])):
        knobs = ", ".join(f"{name}: {value}" for name, value in one["knobs"].items())
        kl = "unbiased" if one["kl"] is None else f"{one['kl']:.5f}"
        rest = [_number(one[name], form) for name, form in (("cosine", ".4f"), ("norm", ".3f"), ("tokens_kept", ".1f"))]
        name = f"{{do: {one['do']}, {knobs}}}"
        yield f"{'*' if best else '':2}{name:46}{one['bytes_per_token']:>12.2f}{kl:>10}{rest[0]:>9}{rest[1]:>8}{rest[2]:>7}"
    once = max((one["once"] for one in told["measured"]), default=0)
    yield f"KL error: mean KL(teacher || stored) in nats. Hidden states add their head once: {once / 2**20:.1f} MiB."
    if told["gradients"] and told["measured"][0]["cosine"] is not None:
        yield (
            "cosine, norm: the student's gradient of the forward KL over all these rows, against the whole distribution's; "
            "samples gain with the size of the batch. *: nothing smaller is nearer."
        )
    else:
        why = (
            "the student is the teacher"
            if told["gradients"]
            else "the recipe has no student with the teacher's tokenizer"
        )
        yield f"no gradients: {why}. *: nothing smaller is nearer."


def _undominated(found: list[dict[str, Any]]) -> list[bool]:
    """By bytes and gradient, or by bytes and KL where there is no gradient."""

    def far(one: dict[str, Any]) -> float:
        return 1 - one["cosine"] if one["cosine"] is not None else one["kl"] if one["kl"] is not None else float("inf")

    return [all(far(one) < far(other) for other in found[:at]) for at, one in enumerate(found)]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
