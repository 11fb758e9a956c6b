"""`compresslab`: the subcommands and their common options and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from compresslab import __version__
from compresslab.cli import compare, doctor, export, fetch, gc, init, listing, plan, reference, report, run, show, trend, validate, verify
from compresslab.errors import CompresslabError

app = typer.Typer(
    name="compresslab",
    help="Does compressing a language model raise its capability density, or only shrink the model?",
    epilog="A good start: compresslab run recipes/quickstart.yaml. Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
INTERRUPTED = 130
COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "run": run.run,
    "plan": plan.plan,
    "validate": validate.validate,
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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
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
    try:
        app(args=arguments, prog_name="compresslab")
    except CompresslabError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer turns a KeyboardInterrupt into this exit code without a message
            typer.echo("interrupted; what was finished is kept, run again to go on", err=True)
        raise
    except OSError as error:
        if debug:
            raise
        typer.echo(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
