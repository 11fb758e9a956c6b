"""`compresslab`: the subcommands and their common options and errors."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, TextIO

import typer

from compresslab import __version__
from compresslab.cli import (
    assess,
    compare,
    doctor,
    export,
    fetch,
    gc,
    import_results,
    init,
    listing,
    plan,
    recipes,
    reference,
    report,
    run,
    show,
    status,
    trend,
    validate,
    verify,
)
from compresslab.cli.interrupts import Interrupts
from compresslab.errors import CompresslabError, CompresslabWarning, disk_trouble
from compresslab.printable import printable

app = typer.Typer(
    name="compresslab",
    help="Does compressing a language model raise its capability density, or only shrink the model?",
    epilog="A good start: compresslab init --from quickstart, then compresslab run quickstart.yaml. Exit codes: 0 done, 1 a run failed, "
    "2 bad input, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
INTERRUPTED = 130
COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "recipes": recipes.recipes,
    "run": run.run,
    "status": status.status,
    "plan": plan.plan,
    "validate": validate.validate,
    "assess": assess.assess,
    "import": import_results.import_results,
    "report": report.report,
    "ls": listing.ls,
    "show": show.show,
    "compare": compare.compare,
    "export": export.export,
    "verify": verify.verify,
    "gc": gc.gc,
    "trend": trend.trend,
    "fetch": fetch.fetch,
    "doctor": doctor.doctor,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(reference.app, name="reference")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and what libraries warn of.")] = False,
) -> None:
    """Options before the subcommand. `--debug` is read by `main`, which catches the errors."""
    del debug
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line. Expected errors end in one message and their exit code, without a traceback."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    with warnings.catch_warnings(), contextlib.nullcontext() if debug else _quiet_logging(), Interrupts() as interrupts:
        warnings.showwarning = _show_warning if debug else _show_own_warning
        try:
            try:
                app(args=arguments, prog_name="compresslab")
            finally:
                interrupts.unwound = True
        except CompresslabError as error:
            if debug:
                raise
            if not interrupts.received:
                typer.echo(f"error: {error}", err=True)
                sys.exit(error.exit_code)
        except KeyboardInterrupt:
            pass  # before or after typer
        except SystemExit as stop:
            # typer turns a KeyboardInterrupt into this exit code without a message
            if stop.code != INTERRUPTED and not interrupts.received:
                raise
        except OSError as error:
            if debug:
                raise
            if not interrupts.received:
                typer.echo(f"error: {disk_trouble(error) or _named(error)}", err=True)
                sys.exit(1)
        else:
            return
        _interrupted()
        sys.exit(interrupts.exit_code if interrupts.received else INTERRUPTED)


def _named(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def _interrupted() -> None:
    """Tell that the command was interrupted. If the terminal is gone, what is still to be printed must not change the exit code."""
    try:
        typer.echo("interrupted; what was finished is kept, run again to go on", err=True)
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keep the warnings that libraries log off the terminal: they are about their own insides. Workers write theirs into the run's logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _show_own_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Warnings of this package for people, and no others."""
    if issubclass(category, CompresslabWarning):
        typer.echo(printable(f"warning: {message}"), err=True)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """Warnings of this package for people; others as Python shows them, for `--debug`."""
    _show_own_warning(message, category)
    if not issubclass(category, CompresslabWarning):
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


if __name__ == "__main__":
    main()
