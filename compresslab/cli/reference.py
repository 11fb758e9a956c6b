"""`compresslab reference`: lists, shows, plots, fits and builds references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compresslab.cli import completion
from compresslab.cli.node_progress import first_line
from compresslab.cli.options import AsJson, Computing, Device, RecipePath, StorePath, changes, store_root
from compresslab.cli.tables import console, say, show_table, table

if TYPE_CHECKING:
    from rich.table import Table

    from compresslab.density import Budget, Reference

app = typer.Typer(help="References: what density is relative to. List, show, plot, fit, build.", no_args_is_help=True)

NAME = Annotated[str, typer.Argument(help="A reference's name, or its .json file.", autocompletion=completion.references)]
OUT = Annotated[Path | None, typer.Option("--out", help="Where to write it.  [default: NAME.json here]", show_default=False)]


TOKENS = Annotated[float | None, typer.Option("--tokens", help="D0 as one number of training tokens for all sizes.", show_default=False)]
TOKENS_PER_PARAMETER = Annotated[
    float | None,
    typer.Option(
        "--tokens-per-parameter", help="D0, training tokens given to the reference for each parameter.  [default: 200]", show_default=False
    ),
]


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the references that ship with compresslab.

    Example: compresslab reference ls
    """
    from compresslab.density import Reference
    from compresslab.report import words

    found = [Reference.load(name) for name in Reference.names()]
    if as_json:
        typer.echo(json.dumps([_summary(reference) for reference in found], indent=2))
        return
    rows = []
    for reference in found:
        sizes = " to ".join(words.count(end) for end in reference.parameters_range)
        tokens = " to ".join(dict.fromkeys(words.count(end) for end in reference.tokens_range))
        by = "score" if reference.kind == "family" else f"loss ({reference.unit}), score"
        rows.append((reference.name, sizes, tokens, str(reference.runs), by, ", ".join(reference.tasks)))
    show_table(console(), table(("reference", "sizes", "tokens", "models", "by", "tasks"), rows, whole=("reference",)))


@app.command("show")
def show(
    name: NAME,
    task: Annotated[
        str | None, typer.Option("--task", help="Read a value off this task's curve.", autocompletion=completion.reference_tasks)
    ] = None,
    bpb: Annotated[float | None, typer.Option("--bpb", help="The loss to read, in the reference's unit.")] = None,
    score: Annotated[float | None, typer.Option("--score", help="The score to read, in [0, 1].")] = None,
    tokens: TOKENS = None,
    tokens_per_parameter: TOKENS_PER_PARAMETER = None,
    as_json: AsJson = False,
) -> None:
    """Show how a reference was fitted and what it is worth; with --task and a value, read effective parameters off it.

    Example: compresslab reference show olmo-ladder --task arc_easy --bpb 0.9
    """
    from rich.text import Text

    from compresslab.density import Reference
    from compresslab.errors import BadInput
    from compresslab.report import words

    reference = Reference.load(name)
    if task is not None:
        budget = _budget(tokens, tokens_per_parameter)
        found = reference.effective_params(task=task, bpb=bpb, score=score, budget=budget)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
            return
        ends = f"{words.count(found.low)} to {words.count(found.high)}"
        flag = ", extrapolated" if found.extrapolated else ""
        typer.echo(f"N_hat = {found.bound}{words.count(found.value)} ({ends}, the ruler's own 95%){flag}; D0 = {budget}")
        return
    if bpb is not None or score is not None:
        raise BadInput(f"of which task? give --task, one of: {', '.join(reference.tasks)}")
    if as_json:
        typer.echo(json.dumps({**_summary(reference), "diagnostics": _diagnostics(reference)}, indent=2))
        return
    screen = console()
    screen.print(Text.assemble((reference.name, "bold"), f": {reference.source}"), soft_wrap=True)
    sizes, budgets = (" to ".join(words.count(end) for end in ends) for ends in (reference.parameters_range, reference.tokens_range))
    form = ", ".join(f"{key}: {value}" for key, value in reference.form.items())
    fitted = f"{reference.runs} models, {sizes} parameters, {budgets} tokens; {reference.resamples} resampled fits"
    say(screen, fitted, reference.convention, f"form: {form}", reference.reach_in_words)
    show_table(screen, _table(reference))


@app.command("plot")
def plot(
    name: NAME,
    out: Annotated[Path | None, typer.Option("--out", help="The picture, .svg.  [default: NAME.svg here]", show_default=False)] = None,
    tokens: TOKENS = None,
    tokens_per_parameter: TOKENS_PER_PARAMETER = None,
) -> None:
    """Draw a reference's curves with their bands: loss where it has losses, else score.

    Example: compresslab reference plot olmo-ladder
    """
    from compresslab.density import Reference
    from compresslab.density.references.curve import curve
    from compresslab.report.charts.standalone import reference_chart, to_svg
    from compresslab.report.overwriting import SVG_MARK, check_file

    reference = Reference.load(name)
    budget = _budget(tokens, tokens_per_parameter)
    path = out or Path(f"{reference.name}.svg")
    check_file(path, SVG_MARK, "name another file with --out")
    curves = [curve(reference, task, budget) for task in reference.tasks]
    path.write_text(to_svg(reference_chart(curves, f"{reference.name}, {budget}")), encoding="utf-8")
    typer.echo(path)


@app.command("fit")
def fit(
    table: Annotated[
        Path | None,
        typer.Argument(help="CSV: run, params, tokens, task, bpb or score or both; optional size, chance.", show_default=False),
    ] = None,
    family: Annotated[
        Path | None,
        typer.Option(
            "--family",
            help="CSV of published scores of one family instead, without losses (docs/bring-your-own.md).",
            metavar="TABLE",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The reference's name.  [default: the table's]", show_default=False)] = None,
    source: Annotated[str, typer.Option("--source", help="Where the table comes from, for the record.")] = "",
    unit: Annotated[str, typer.Option("--unit", help="Unit of the losses: 'bits per byte' or 'bits per word'.")] = "bits per byte",
    out: OUT = None,
) -> None:
    """Fit a reference to a table of models; use it in a recipe as `density: {reference: ./NAME.json}`.

    Example: compresslab reference fit models.csv --name mine
    """
    from compresslab.density.references.user import fit_table, read_table
    from compresslab.errors import BadInput

    if (given := family or table) is None or (family is not None and table is not None):
        raise BadInput("give one table: of models with losses (TABLE), or of published scores (--family TABLE)")
    reference_name = name or given.stem
    path = _target(out, reference_name)
    if family is not None:
        from compresslab.density.references.family import build_family
        from compresslab.studies.imported.family_table import read_family_table

        _write(build_family(read_family_table(family, reference_name, source)), path)
        return
    assert table is not None, "one of the two is given"
    _write(fit_table(read_table(table), reference_name, source or f"the table {table.name}", unit), path)


@app.command("build")
def build(recipe: RecipePath, store: StorePath = None, out: OUT = None, compute: Computing = None, device: Device = None) -> None:
    """Evaluate a recipe's base and adopted models, each with its `train_tokens`, and fit a reference to them.

    Example: compresslab reference build my-models.yaml
    """
    first_line(recipe)
    import pandas as pd

    from compresslab.cli.progress import ProgressPrinter
    from compresslab.density.references.user import fit_table
    from compresslab.errors import BadInput, RunFailed
    from compresslab.plan.prepare import prepare
    from compresslab.store.store import Store
    from compresslab.studies import reference
    from compresslab.studies.run_study import run_nodes

    with ProgressPrinter(console()) as printer:
        printer.start_part("read what is to run")
        plan = prepare(recipe, changes(None, None, None, compute), device)
        if plan.recipe.evaluate.source != "run":
            raise BadInput(f"{recipe}: a reference is built from models that are run; published scores make one with `reference fit`")
        reference.check(plan)
        path = _target(out, plan.recipe.study)
        result_store = Store(store_root(store))
        run_result = run_nodes(plan, result_store, printer)
    if run_result.failures:
        raise RunFailed("\n".join(f"{failure.node}: {failure.cause}" for failure in run_result.failures.values()))
    made = pd.DataFrame(reference.rows(plan, result_store))
    _write(fit_table(made, plan.recipe.study, f"evaluated by compresslab, recipe {recipe.name}"), path)


def _budget(tokens: float | None, per_parameter: float | None) -> Budget:
    """D0 from the two options. Raises BadInput if both are given."""
    from compresslab.density.references.budget import Budget, default_budget

    return default_budget() if tokens is None and per_parameter is None else Budget(tokens, per_parameter)


def _target(out: Path | None, name: str) -> Path:
    """The path of the reference's file, checked before computation. Raises BadInput."""
    from compresslab.errors import BadInput

    path = out or Path(f"{name}.json")
    if path.suffix != ".json":
        raise BadInput(f"--out {path}: a reference is a .json file")
    if not path.parent.is_dir():
        raise BadInput(f"--out {path}: there is no folder {path.parent}")
    if path.exists() or path.is_symlink():
        _check_own(path, name)
    return path


def _check_own(path: Path, name: str) -> None:
    """Refuse to write over a file that is not an earlier fit of the same reference. Raises BadInput."""
    from compresslab.density import Reference
    from compresslab.errors import BadInput

    try:
        there = Reference.load(str(path)).name
    except BadInput as error:
        raise BadInput(f"{path} is there already and is no reference; name another file with --out") from error
    if there != name:
        raise BadInput(f"{path} is there already and has the reference {there!r}, not {name!r}; name another file with --out")


def _write(content: dict[str, Any], path: Path) -> None:
    from compresslab.density import Reference
    from compresslab.density.references.build import reference_json
    from compresslab.files import atomic_write

    atomic_write(path, reference_json(content))
    screen = console()
    show_table(screen, _table(Reference.load(str(path))))
    say(screen, f"{path}; in a recipe: density: {{reference: {path}}}")


def _summary(reference: Reference) -> dict[str, Any]:
    plain = (
        "name",
        "source",
        "kind",
        "unit",
        "convention",
        "form",
        "parameters_range",
        "tokens_range",
        "reach",
        "reach_tested",
        "runs",
        "resamples",
    )
    return {key: getattr(reference, key) for key in plain} | {"tasks": list(reference.tasks)}


def _diagnostics(reference: Reference) -> dict[str, Any]:
    fields = ("latent", "chance", "r2_loss", "r2_score", "loss_range", "score_range", "held_out")
    return {task: {key: getattr(fit, key) for key in fields} for task, fit in reference.tasks.items()}


def _table(reference: Reference) -> Table:
    """A table of each task's fit, and of the prediction errors of held-out runs."""
    import numpy as np

    from compresslab.report import words

    rows = []
    for task, fit in reference.tasks.items():
        ends = [" to ".join(words.number(end) for end in bounds) if bounds else "" for bounds in (fit.loss_range, fit.score_range)]
        errors = [
            f"{100 * float(np.mean([abs(run[key]) for run in fit.held_out.values()])):.1f}%"
            if fit.held_out and fit.score is not None
            else ""
            for key in ("loss_error", "score_error")
        ]
        r2 = ["" if value is None else f"{value:.3f}" for value in (fit.r2_loss, fit.r2_score)]
        rows.append((task, *r2, *ends, *errors))
    headings = ("task", "R2 loss", "R2 score", "losses seen", "scores seen", "held out: loss", "score")
    return table(headings, rows, right=headings[1:], whole=("task",))
