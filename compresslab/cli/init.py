"""`compresslab init`: writes a first recipe from a few answers, or one of those that ship."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from compresslab.cli import completion
from compresslab.cli.options import count_of
from compresslab.printable import printable, unprintable

ANSWER = TypeVar("ANSWER")
DEFAULT_STUDY = "my-study"
DEFAULT_MODEL = "offline:smollm2-135m-instruct"
DEFAULT_COMPRESS = "depth, nf4"
DEFAULT_ITEMS = 200

RecipeToWrite = Annotated[
    Path | None,
    typer.Argument(
        help="The file to write; it must not exist yet.  \\[default: the study's name and .yaml]", metavar="PATH", show_default=False
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help=f"offline:<name>, a Hub id, a folder or a .gguf file.  \\[default: {DEFAULT_MODEL}]", show_default=False),
]
Study = Annotated[
    str | None, typer.Option("--study", help=f"The study's name.  \\[default: the file's, else {DEFAULT_STUDY}]", show_default=False)
]
Compress = Annotated[
    list[str] | None,
    typer.Option(
        "--compress",
        help="depth, width, sparse, distill, nf4, int8, rtn, gptq, awq: several with commas, or given several times.  "
        f"\\[default: {DEFAULT_COMPRESS}]",
        metavar="HOW",
        show_default=False,
        autocompletion=completion.ways_to_compress,
    ),
]
Heal = Annotated[
    bool | None, typer.Option("--heal/--no-heal", help="Train what is pruned afterwards.  \\[default: heal]", show_default=False)
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="One of the package's recipes (`compresslab recipes`), as it is.",
        metavar="NAME",
        show_default=False,
        autocompletion=completion.recipes,
    ),
]
Items = Annotated[int | None, typer.Option("--items", help=f"Items of each task.  \\[default: {DEFAULT_ITEMS}]", min=1, show_default=False)]


def init(
    path: RecipeToWrite = None,
    shipped: From = None,
    model: Model = None,
    study: Study = None,
    compress: Compress = None,
    heal: Heal = None,
    items: Items = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: defaults where no option says.")] = False,
) -> None:
    """Write a first recipe with a comment for every setting. Asks for missing options; without a terminal it takes the defaults.

    Amounts and group sizes are chosen to suit the model, where its dimensions are known without loading it. `--from NAME` writes one of the
    recipes that come with the package instead.

    Example: compresslab init my-study.yaml --yes
    """
    import shlex

    from compresslab.errors import BadInput
    from compresslab.plan.rules import start
    from compresslab.plan.starter import CHOICES, PRUNED, Answers, starter

    if shipped is not None:
        if [option for option in (model, study, compress, heal, items) if option is not None]:
            raise BadInput("--from writes a recipe as it is; give it without --model, --study, --compress, --heal and --items")
        _write_shipped(shipped, path)
        return
    interactive = not yes and sys.stdin is not None and sys.stdin.isatty()
    if path is not None:
        _check_path(path)
    model = _answer("Which model? (offline:<name>, a Hub id, a folder or a .gguf file)", model, DEFAULT_MODEL, _model, interactive)
    chain = start(model)
    study = _answer("The study's name?", study, _name_of(path), _study, interactive)
    if path is None:
        path = Path(f"{study}.yaml")
        _check_path(path)
    if interactive and compress is None:
        typer.echo("\n".join(["Ways to compress:", *(f"  {name:<8} {description}" for name, description in CHOICES.items())]))
    methods = _answer(
        "Which ones? (with commas)", None if compress is None else ",".join(compress), DEFAULT_COMPRESS, _choices, interactive
    )
    pruned = [choice for choice in methods if choice in PRUNED]
    if heal and not pruned:
        raise BadInput(f"--heal trains what is pruned, and nothing is; add {', '.join(PRUNED[:-1])} or {PRUNED[-1]} to --compress")
    if heal is None:
        heal = bool(pruned) and (not interactive or typer.confirm("Train what is pruned afterwards?", default=True))
    count = _answer("Items of each task?", None if items is None else str(items), str(DEFAULT_ITEMS), _items, interactive)
    _write(path, starter(Answers(study, model, methods, heal, count), chain, shlex.quote(str(path))))


def _answer(question: str, option: str | None, default: str, check: Callable[[str], ANSWER], interactive: bool) -> ANSWER:
    """The checked option, else the answer at the terminal, else the default. The terminal repeats the question after a bad answer."""
    from compresslab.errors import BadInput

    if option is not None or not interactive:
        return check(default if option is None else option)

    def checked(answer: str) -> ANSWER:
        try:
            return check(answer)
        except BadInput as error:
            raise typer.BadParameter(str(error)) from None

    answer: ANSWER = typer.prompt(question, default=default, value_proc=checked)
    return answer


def _check_path(path: Path) -> None:
    """Raise BadInput for a file that cannot be written, before the first question."""
    from compresslab.errors import BadInput
    from compresslab.recipe.locate import shown

    if path.exists() or path.is_symlink():
        raise BadInput(f"{path} exists already and is left as it is; give a file that does not")
    if unprintable(str(path)) or set("\n\t") & set(str(path)):
        raise BadInput(f"{shown(str(path))} holds an unprintable character; give another name")
    if not path.parent.is_dir():
        raise BadInput(f"no folder {path.parent}; make it first")


def _model(answer: str) -> str:
    from compresslab.errors import BadInput
    from compresslab.recipe.locate import shown
    from compresslab.recipe.source import parse_source

    model = answer.strip()
    if unprintable(model) or set("\n\t") & set(model):
        raise BadInput(f"{shown(model)} holds an unprintable character, which no recipe can name; rename it")
    parse_source(model)
    return model


def _name_of(path: Path | None) -> str:
    """The file's name if it is a valid study name, else the default."""
    from compresslab.errors import BadInput

    try:
        return DEFAULT_STUDY if path is None else _study(path.stem)
    except BadInput:
        return DEFAULT_STUDY


def _study(answer: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from compresslab.errors import BadInput
    from compresslab.recipe.locate import shown
    from compresslab.recipe.schema import NAME_FORM, Name

    try:
        return TypeAdapter[str](Name).validate_python(answer.strip())
    except ValidationError:
        raise BadInput(f"{shown(answer)} cannot name a study; give {NAME_FORM}") from None


def _choices(answer: str) -> tuple[str, ...]:
    from compresslab.errors import BadInput
    from compresslab.plan.starter import CHOICES
    from compresslab.recipe.locate import shown
    from compresslab.suggestions import suggest

    names = list(dict.fromkeys(word.strip().lower() for word in answer.split(",") if word.strip()))
    for name in names:
        if name not in CHOICES:
            raise BadInput(f"no way to compress is called {shown(name)};{suggest(name, list(CHOICES))} there are: {', '.join(CHOICES)}")
    if not names:
        raise BadInput(f"name at least one way to compress: {', '.join(CHOICES)}")
    return tuple(names)


def _items(answer: str) -> int:
    from compresslab.errors import BadInput
    from compresslab.recipe.locate import shown

    try:
        count = int(answer)
    except ValueError:
        count = 0
    if count < 1:
        raise BadInput(f"{shown(answer)} is no number of items; give a whole number above 0")
    return count


def _write_shipped(name: str, target: Path | None) -> None:
    """Write a recipe of the package and print the next commands. The commands in its comments get the file's name."""
    import shlex

    from compresslab.catalog.recipes import SCHEMA_LINE, recipe_path

    source = recipe_path(name)
    path = target or Path(source.name)
    _check_path(path)
    inside = source.as_posix().partition("/data/")[2]
    text = source.read_text(encoding="utf-8").replace(inside, shlex.quote(str(path)))
    _create(path, f"{SCHEMA_LINE}\n{text}")
    typer.echo(printable(f"{path}: the package's recipe {source.stem}; change it as you like"))
    _next(path)


def _create(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _check_path(path)
        raise


def _next(path: Path) -> None:
    import shlex

    name = shlex.quote(str(path))
    typer.echo(f"next: compresslab plan {name}    what would run, at what cost?\n      compresslab run {name}     run it")


def _write(path: Path, text: str) -> None:
    """Write the recipe and print the next commands. A recipe that cannot be planned is removed.

    Raises:
        BadInput: the file was written by another process meanwhile, or the recipe does not suit this model or this installation.
    """
    from compresslab.errors import BadInput
    from compresslab.plan.prepare import prepare

    _create(path, text)
    try:
        plan = prepare(path)
    except BaseException as error:
        path.unlink()
        if isinstance(error, BadInput):
            raise BadInput(f"{path} is not written, because it could not run; {error}") from error
        raise
    named = [variant for variant in plan.variants if variant.named and variant.parent]
    tasks = f"{count_of(len(plan.recipe.evaluate.tasks), 'task')} of {count_of(int(plan.recipe.evaluate.items), 'item')}"
    typer.echo(printable(f"{path}: {count_of(len(named), 'variant')} of {plan.recipe.base.model}, {tasks}; change it as you like"))
    for warning in plan.warnings:
        typer.echo(printable(f"warning: {warning}"))
    _next(path)
