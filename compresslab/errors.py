"""Every error that a user can meet, and what errors of libraries mean. Each message says what is wrong, where, and what to do about it."""

from __future__ import annotations

from compresslab.printable import printable
from compresslab.suggestions import MOST_PROBLEMS


class CompresslabError(Exception):
    """Base of all expected errors. The command line prints the message alone, without a traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # messages quote recipes, files and libraries, and are read on terminals


class BadInput(CompresslabError):
    """What the user gave cannot be used: a recipe, an option, a model name, a file."""

    exit_code = 2


class RecipeError(BadInput):
    """One or more problems in a recipe, all of them listed at once.

    Attributes:
        problems: the single messages, each already carrying `file:line:column`. The error's own text has the first `MOST_PROBLEMS`.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        more = len(problems) - MOST_PROBLEMS
        super().__init__("\n".join([f"{count} in the recipe:", *problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]))


class UnsupportedModel(BadInput):
    """A method does not apply to this architecture; the message names the module or the setting that is in the way."""


class RunFailed(CompresslabError):
    """A node of a study failed while it ran. What finished before it stays in the store."""


def out_of_memory(error: Exception) -> bool:
    """Whether an error of any library means that memory ran out, so that neither the model nor the code is the cause."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in ("not enough memory", "out of memory", "allocate memory"))
