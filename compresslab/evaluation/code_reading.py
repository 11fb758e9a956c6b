"""Which functions score a task, as far as they can be read, and where they run a text as code.

Functions are read as bytecode, which tells a global from a local name and from an attribute. Globals, imports and attributes of modules,
classes and the tasks' own objects are looked up, and what is found is judged: `platform.system` is harmless, and `os.system` is not, under
whatever name. An attribute of an object that is not known is judged by its name. What a function is called with is not followed.
"""

from __future__ import annotations

import builtins
import dis
import functools
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

# What runs a text as code or starts another program, by package: a pattern of the names within it. `ast.literal_eval` and sympy's
# `parse_latex` are not among them, which are parsers, nor math_verify, which gives `parse_expr` digits and operators only.
WHOLE = re.compile(r".*")
RUNNING = {
    **dict.fromkeys(("subprocess", "pty", "pexpect", "sh", "plumbum", "docker", "paramiko", "fabric"), WHOLE),
    **dict.fromkeys(("pickle", "marshal", "dill", "cloudpickle", "shelve", "ctypes", "cffi"), WHOLE),
    **dict.fromkeys(("runpy", "imp", "code", "codeop", "timeit", "pdb", "bdb", "profile", "cProfile", "IPython", "nbclient"), WHOLE),
    **dict.fromkeys(("asteval", "numexpr", "RestrictedPython", "js2py", "execjs", "quickjs", "pyswip", "sqlite3", "duckdb"), WHOLE),
    **dict.fromkeys(("os", "posix", "nt"), re.compile(r"(exec|spawn|posix_spawn)\w*|system|popen|startfile")),
    "builtins": re.compile(r"eval|exec|compile|__import__"),
    "importlib": re.compile(r"(?!(metadata|resources)\b|util\.find_spec$).*"),
    "asyncio": re.compile(r"(.*\.)?create_subprocess_\w+"),
    "pandas": re.compile(r"(.*\.)?(eval|query|read_pickle)"),
    "joblib": re.compile(r"(.*\.)?load"),
    "torch": re.compile(r"(.*\.)?load"),
    "sympy": re.compile(r"(.*\.)?(sympify|parse_expr|eval_expr|lambdify|S|SingletonRegistry)"),
    "yaml": re.compile(r"(.*\.)?(unsafe_\w+|C?(Unsafe)?Loader)"),
}
# Names of attributes that run a text as code, whatever has them.
ANYWHERE = re.compile(
    r"exec|execfile|__import__|import_module|exec_module|load_module|subprocess|pickle|marshal|ctypes|runpy|Popen|popen|(exec|spawn)[lv]p?e?|"
    r"posix_spawnp?|check_output|check_call|getoutput|getstatusoutput|create_subprocess_\w+|read_pickle|sympify|parse_expr|runcode|runsource|"
    r"run_path|run_module|runctx|unsafe_load|Interactive(Interpreter|Console)"
)
# The same, unless they are called with nothing: `model.eval()` changes a mode, and `platform.system()` tells a name.
WITH_A_TEXT = re.compile(r"eval|system")
# Ways to an attribute or a global by a text.
BY_TEXT = {"getattr", "attrgetter", "methodcaller", "__getattribute__", "__dict__", "__builtins__", "globals", "vars", "modules"}

TASKS = "lm_eval.tasks"
# Modules of lm-eval and of the hub that see what the model wrote. lm-eval names those of tasks in folders elsewhere by their path.
READ = (TASKS, "/", "lm_eval.filters", "lm_eval.api.filter", "lm_eval.api.metrics", "evaluate_modules.")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM")
# Instructions between those that belong together.
SILENT = ("CACHE", "COPY", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "POP_TOP", "PRECALL", "PUSH_NULL", "RESUME", "SWAP")
PLAIN = (str, bytes, int, float, complex, type(None))


class _Unknown:
    """The value of a name that cannot be looked up."""


UNKNOWN = _Unknown()


class _Found(NamedTuple):
    """A value that code refers to, and its name with those of its modules, as far as they are known."""

    value: Any = UNKNOWN
    name: str = ""


class Read(NamedTuple):
    """What scores a task: the values that its parts lead to, and the places that run a text as code, as "function: name"."""

    values: list[Any]
    places: set[str]


def read(roots: Iterable[Any], packages: Iterable[str] = ()) -> Read:
    """Follow some functions and objects to everything that they lead to.

    Functions and classes of installed packages are judged and not read, except those of lm-eval's tasks and of `packages`.
    """
    own = frozenset(packages)
    waiting = [(root, "") for root in roots]
    seen: dict[int, Any] = {}  # holds the values, since an id is given again when its value is gone
    places: set[str] = set()
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, PLAIN) or value is sys.modules or id(value) in seen:
            continue
        seen[id(value)] = value
        if name := _running(_own_name(value)):
            places.add(f"{place or 'the task'}: {name}")
        if isinstance(value, FunctionType) and _is_read(value.__module__, own):
            place = f"{value.__module__}.{value.__name__}"
            found, names = _uses(value)
            places |= {f"{place}: {name}" for name in names}
            waiting += [(one, place) for one in found]
        waiting += [(one, place) for one in _members(value, own)]
    return Read(list(seen.values()), places)


def _is_read(module: str | None, own: frozenset[str]) -> bool:
    """Whether functions and classes of a module are read. Modules that no package installed are the user's."""
    if not isinstance(module, str) or module.startswith(READ):
        return True
    package = module.split(".")[0]
    if package in own:
        return True
    return package not in ("lm_eval", "compresslab") and not _installed(module)


@functools.cache
def _installed(module: str) -> bool:
    if module.split(".")[0] in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    folders = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")]
    return file is not None and any(Path(file).resolve().is_relative_to(folder) for folder in folders)


def _members(value: Any, own: frozenset[str]) -> Iterator[Any]:
    """What a value is made of: members of containers, bound arguments, what a decorator wraps, and methods and fields of what is read."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, functools.partial | functools.partialmethod):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, functools.cached_property):
        yield value.func
    elif isinstance(value, type):
        yield from (member for kind in value.__mro__ if _is_read(kind.__module__, own) for member in vars(kind).values())
    wrapped = inspect.getattr_static(value, "__wrapped__", None)
    if wrapped is not None and not isinstance(value, type):
        yield getattr(value, "__wrapped__", None)
    if not isinstance(value, type | ModuleType | FunctionType) and _is_read(type(value).__module__, own):
        yield type(value)
        yield from getattr(value, "__dict__", {}).values()
        slots = [name for kind in type(value).__mro__ for name in inspect.getattr_static(kind, "__slots__", ())]
        yield from (getattr(value, name, None) for name in slots if isinstance(name, str))


def _uses(function: FunctionType) -> tuple[list[Any], set[str]]:
    """The values that a function refers to, with its defaults and cells, and the names in it that run a text as code."""
    cells = {
        name: cell.cell_contents
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        if _full(cell)
    }
    known = {name: _Found(value, _own_name(value)) for name, value in cells.items()}
    found, names = _scan(function.__code__, function.__globals__, known)
    values = [*found, *cells.values(), *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *vars(function).values()]
    return [value for value in values if not isinstance(value, ModuleType)], names


def _full(cell: Any) -> bool:
    return bool(cell != type(cell)())


def _scan(code: CodeType, namespace: Mapping[str, Any], known: Mapping[str, _Found]) -> tuple[list[Any], set[str]]:
    """What `_uses` gives for some code and the code within it. `known`: what the local names around it are bound to."""
    local, values, names = dict(known), list[Any](), set[str]()
    instructions = [one for one in dis.get_instructions(code) if one.opname not in SILENT]
    following = [*instructions[1:], None]
    last, imported, whole = _Found(), _Found(), False
    for number, (one, after) in enumerate(zip(instructions, following, strict=True)):
        kind, name = one.opname, one.argval
        if kind.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME")):
            if last != _Found() and isinstance(name, str):
                local[name] = last
            last = _Found()
            continue
        if kind in ("LOAD_GLOBAL", "LOAD_NAME"):
            last = local.get(name) or _global(namespace, name)
        elif kind.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")):
            last = local.get(name[-1] if isinstance(name, tuple) else name, _Found())
            if last == _Found():
                continue
        elif kind == "IMPORT_NAME":
            whole = bool(instructions[number - 1].argval)  # `from a.b import c`; `import a.b` gives a
            last = imported = _module(name, namespace, whole, instructions[number - 2].argval)
            continue
        elif kind in ATTRIBUTES:
            last = _attribute(imported if kind == "IMPORT_FROM" else last, name)
            if kind == "IMPORT_FROM" and not whole:
                imported = last
        else:
            last = _Found()
            continue
        attribute_follows = after is not None and after.opname in ATTRIBUTES
        values.append(last.value)
        if not (isinstance(last.value, ModuleType) and (attribute_follows or (after and after.opname.startswith("STORE")))):
            called_with_nothing = after is not None and after.opname.startswith("CALL") and after.arg == 0
            names |= {
                found for found in (_running(last.name), _running(_own_name(last.value)), _by_name(last, called_with_nothing)) if found
            }
    if BY_TEXT & set(code.co_names):
        texts = {text for text in code.co_consts if isinstance(text, str)}
        names |= {f"{text} by name" for text in texts if ANYWHERE.fullmatch(text) or WITH_A_TEXT.fullmatch(text)}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more, others = _scan(constant, namespace, local)
            values, names = [*values, *more], names | others
    return [value for value in values if value is not UNKNOWN], names


def _global(namespace: Mapping[str, Any], name: str) -> _Found:
    value = namespace.get(name, getattr(builtins, name, UNKNOWN))
    return _Found(value, _own_name(value))


def _module(name: str, namespace: Mapping[str, Any], whole: bool, level: Any) -> _Found:
    """A module that a function imports, if it is loaded; by its name alone otherwise."""
    if isinstance(level, int) and level > 0:
        name = importlib.util.resolve_name("." * level + name, namespace.get("__package__") or "") if namespace.get("__package__") else name
    name = name if whole else name.split(".")[0]
    return _Found(sys.modules.get(name, UNKNOWN), name)


def _attribute(of: _Found, name: str) -> _Found:
    """An attribute, without running code of its object's. Its name begins with a point if the object is not known."""
    if isinstance(of.value, ModuleType):
        return _Found(vars(of.value).get(name, UNKNOWN), f"{of.value.__name__}.{name}")
    value = UNKNOWN if of.value is UNKNOWN else inspect.getattr_static(of.value, name, UNKNOWN)
    return _Found(value, f"{of.name}.{name}")


def _own_name(value: Any) -> str:
    """The full name of a module, function or class, and of the class of any other object."""
    if value is UNKNOWN:
        return ""
    if isinstance(value, ModuleType):
        return value.__name__
    named = value if isinstance(value, FunctionType | BuiltinFunctionType | type) else type(value)
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", "")
    return f"{module}.{name}" if isinstance(module, str) else ""


def _running(name: str) -> str:
    """The name, if it is one of `RUNNING`; empty otherwise. Of a whole module, every name is."""
    package, _, rest = name.partition(".")
    pattern = RUNNING.get(package) or RUNNING.get(package.removeprefix("_"))
    if pattern is None or not (pattern.fullmatch(rest) if rest else True):
        return ""
    return name.removeprefix("builtins.")


def _by_name(found: _Found, called_with_nothing: bool) -> str:
    """The name of an attribute of an object that is not known, if such an attribute runs a text as code."""
    if found.value is not UNKNOWN:
        return ""
    name = found.name.rpartition(".")[2]
    return name if ANYWHERE.fullmatch(name) or (WITH_A_TEXT.fullmatch(name) and not called_with_nothing) else ""
