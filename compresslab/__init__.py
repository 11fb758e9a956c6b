"""compresslab: does compressing a language model raise its capability density, or only shrink it?

The public interface is what this module exports; everything else may change.

Studies: `run_study` runs a recipe and gives its record, a `Study`, on the hosts of a `cluster` if it is given one. `read_study` reads one
that was reported. A notebook shows a study as its verdicts with a chart, `Study.frame` gives its tables as pandas frames, and `tables`
makes them of every record. `write_report` writes its page. Steps: `compress` applies one step to a model. Density: `Reference` is a
ruler, `assess` gives densities and verdicts of `Measured` models (`Size`, `Shape`, items or scores), `compare` those of one child and one
parent. Evaluation: `TreeLM` is lm-eval's model, exact and faster. Errors are `CompresslabError`s: `BadInput`, what the caller can mend,
and `RunFailed`.

Types stand in `__init__.pyi`, so that looking at a name here imports nothing before it is used.
"""

from importlib import import_module

__version__ = "0.1.0"  # the only place; pyproject.toml reads it from here

_HOMES = {
    "BadInput": "errors",
    "Comparison": "records",
    "CompresslabError": "errors",
    "Density": "records",
    "Interval": "records",
    "Measured": "density",
    "Recipe": "recipe.schema",
    "Reference": "density",
    "RunFailed": "errors",
    "Shape": "records",
    "Size": "records",
    "StepRecord": "records",
    "Study": "studies.study",
    "StudyRecord": "records",
    "TaskScore": "records",
    "TreeLM": "evaluation.tree_lm",
    "VariantRecord": "records",
    "assess": "density",
    "cluster": "runner.executors.cluster",
    "compare": "density",
    "compress": "studies.compress",
    "load_recipe": "recipe.load",
    "plan_study": "studies.run_study",
    "read_study": "studies.read_study",
    "run_study": "studies.run_study",
    "tables": "report",
    "write_report": "report.html",
}
_INSIDE = {"cluster": "connected", "load_recipe": "load", "write_report": "write"}  # what a name is called at home

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name == "tables":
        return import_module("compresslab.report.tables")
    if name in _HOMES:
        return getattr(import_module(f"compresslab.{_HOMES[name]}"), _INSIDE.get(name, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
