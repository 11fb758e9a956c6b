"""What the functions that score a task lead to, and which of it runs a text as code."""

from __future__ import annotations

import sys
import textwrap
from types import ModuleType
from typing import Any

import pytest

from compresslab.evaluation import code_reading
from compresslab.evaluation.code_reading import read

NAME = "/folder/made_up_task"
PROGRAMS = (
    *("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe", "posix_spawn", "posix_spawnp", "system", "popen"),
    *("spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe"),
)
RUNS = {
    # Names of other objects' methods and of instances.
    "a call of an instance": "class Judge:\n def __call__(self, t): return eval(t)\nscore = Judge()",
    "a call of an instance in a table": "class Judge:\n def __call__(self, t): return eval(t)\n"
    "table = [Judge()]\ndef score(t): return table[0](t)",
    "a method of an instance": "class Judge:\n def __init__(self): self.how = run\n def __call__(self, t): return self.how(t)\n"
    "def run(t): return eval(t)\nscore = Judge()",
    "a method that an instance is asked for": "class Judge:\n def judge(self, t): return eval(t)\n"
    "one = Judge()\ndef score(t): return one.judge(t)",
    "a field of an instance with slots": "class Judge:\n __slots__ = ('how',)\n def __call__(self, t): return self.how(t)\n"
    "score = Judge()\nscore.how = eval",
    "a class above": "class Above:\n def judge(self, t): return exec(t)\nclass Judge(Above): pass\ndef score(t): return Judge().judge(t)",
    "a function in a table": "table = {'one': [eval]}\ndef score(t): return table['one'][0](t)",
    "a wrapped function": "import functools\n@functools.lru_cache\ndef inner(t): return eval(t)\ndef score(t): return inner(t)",
    "a bound argument": "import functools\nscore = functools.partial(map, eval)",
    "a cell": "def make(how):\n def score(t): return how(t)\n return score\nscore = make(exec)",
    "a lambda": "score = lambda t: (lambda u: eval(u))(t)",
    # Globals that have a builtin's name.
    "a global called filter": "def filter(t): return eval(t)\ndef score(t): return filter(t)",
    "a global called compile": "import os\ndef compile(t): return os.system(t)\ndef score(t): return compile(t)",
    # Programs and pickles, under whatever name.
    **{
        f"os.{name}": f"import os\ndef score(t): os.{name}(t)"
        for name in PROGRAMS
    },
    "another name": "from os import system as of\ndef score(t): return of(t)",
    "another name for a module": "import os as platform\ndef score(t): return platform.system(t)",
    "an import inside": "def score(t):\n import os as o\n def inner(): return o.system(t)\n return inner()",
    "an import of a package inside": "def score(t):\n import concurrent.futures, os.path as p, os\n return os.popen(t)",
    "an import of a name inside": "def score(t):\n from subprocess import DEVNULL, run as go\n return go(t)",
    "a module handed on": "import os\ndef score(t): return getattr(os, 'sys' + 'tem')(t)",
    "an attribute by a text": "def score(t, machine): return getattr(machine, 'system')(t)",
    "an attribute of something unknown": "def score(t, frame): return frame.eval(t)",
    "a module from the table of modules": "import sys\ndef score(t): return sys.modules['os'].system(t)",
    "an interpreter": "import code\ndef score(t): code.InteractiveInterpreter().runsource(t)",
    "read_pickle": "def score(t):\n import pandas as pd\n return pd.read_pickle(t)",
    "read_pickle of a module that is not there": "def score(t):\n import fastframes as pd\n return pd.read_pickle(t)",
    "torch.load": "def score(t):\n import torch\n return torch.load(t)",
    "joblib": "def score(t):\n from joblib import load\n return load(t)",
    "dill": "def score(t):\n import dill as json\n return json.loads(t)",
    "cloudpickle": "def score(t):\n import cloudpickle\n return cloudpickle.loads(t)",
    "pickle": "import _pickle as p\ndef score(t): return p.loads(t)",
    "shelve": "import shelve\ndef score(t): return shelve.open(t)",
    "sympify": "def score(t):\n from sympy import S\n return S(t)",
    "a module by its name": "import importlib\ndef score(t): return importlib.import_module(t)",
    "builtins": "import builtins\ndef score(t): return builtins.exec(t)",
}  # fmt: skip
READS = {
    "platform": "import platform\ndef score(t): return platform.system() + t",
    "a platform in a variable": "def score(t, platform): return platform.system() + t",
    "a model's mode": "class Judge:\n def __init__(self, model): self.model = model.eval()\ndef score(t): return Judge(t)",
    "an expression": "import re\nPATTERN = re.compile('a')\ndef score(t): return PATTERN.match(t) or re.compile(t)",
    "a literal": "import ast\ndef score(t): return ast.literal_eval(t)",
    "json": "import json\ndef score(t): return json.loads(t)",
    "a version":
    "from importlib import metadata\nfrom importlib.util import find_spec\ndef score(t): return metadata.version(t), find_spec(t)",
    "paths": "import os\ndef score(t): return os.path.join(os.getcwd(), t)",
    "its own name": "def system(t): return t\ndef parse_expr(t): return t\ndef score(t): return parse_expr(system(t))",
    "a key": "def score(t): return {'eval': 1}['eval']",
    "a function that does not score": "def other(t): return eval(t)\ndef score(t): return t",
    "the library's own": "import statistics\ndef score(t): return statistics.mean(t)",
}  # fmt: skip


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(source: str) -> set[str]:
        module = ModuleType(NAME)
        monkeypatch.setitem(sys.modules, NAME, module)
        exec(textwrap.dedent(source), vars(module))
        return read([module.score]).places

    return of


@pytest.mark.parametrize("case", RUNS)
def test_what_runs_a_text_as_code_is_found(case: str, places: Any) -> None:
    assert places(RUNS[case])


@pytest.mark.parametrize("case", READS)
def test_what_only_reads_a_text_is_not(case: str, places: Any) -> None:
    assert places(READS[case]) == set()


def test_a_place_is_named_by_its_function_and_what_it_uses(places: Any) -> None:
    assert places("import os\ndef inner(t): os.execvpe(t, [], {})\ndef score(t): inner(t)") == {f"{NAME}.inner: os.execvpe"}


def test_functions_of_an_installed_package_are_read_only_if_a_task_names_the_package() -> None:
    from timeit import main

    assert read([main]).places == {"the task: timeit.main"}
    import tabnanny

    assert read([tabnanny.check]).places == set()
    from email import charset

    assert code_reading._is_read(charset.__name__, frozenset({"email"}))
    assert not code_reading._is_read(charset.__name__, frozenset())
