"""The examples in the commands' help, the commands of the README and of docs/first-study.md, and their library examples work.

They run on a tiny model in the quickstart's place. What one has made is in the store for the next.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import FIRST_STUDY, README, ROOT, blocks, of_compresslab
from typer.testing import CliRunner

from compresslab.cli import reference
from compresslab.cli.main import COMMANDS, app

# Their examples take what no command here makes: several models, a parent, lm-eval's files. tests/runner/test_reference_build.py,
# tests/studies/test_assess.py and tests/studies/test_import_lm_eval.py run them.
ELSEWHERE = {"reference build", "assess", "import"}
ORDER = ["fetch", "validate", "plan", "run", "report", "ls", "show", "compare", "verify", "export", "gc"]
TABLE = "run,params,tokens,task,bpb\n" + "".join(
    f"r{size}-{tokens},{size}e8,{tokens}e9,easy,{0.4 + 0.9 / size**0.35 + 0.5 / tokens**0.3:.5f}\n"
    for size in (1, 2, 4, 8, 16)
    for tokens in (10, 40, 160)
)
REAL_MODEL = "offline:smollm2-135m-instruct"


def examples() -> Iterator[tuple[str, str]]:
    """Each command with the example in its help."""
    commands = {**COMMANDS, **{f"reference {info.name}": info.callback for info in reference.app.registered_commands}}
    for name in sorted(commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        found = re.search(r"^ *Example: compresslab (.+)$", commands[name].__doc__ or "", re.MULTILINE)  # type: ignore[union-attr]
        assert found, f"the help of {name} has no example"
        assert found[1].startswith(name)
        yield name, found[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that all tests of this file share."""
    return tmp_path_factory.mktemp("shared-store")


@pytest.fixture
def quickstart(recipe_text: str) -> str:
    """The quickstart on the tiny model, with a variant in 8 bits as `nf4`."""
    text = recipe_text.replace("study: tiny", "study: smollm2-quickstart")
    start, end = text.index("  pruned:"), text.index("evaluate:")
    whole = f"{text[:start]}  nf4: [{{quantize: {{method: rtn, bits: 8, group_size: 32}}}}]\n{text[end:]}"
    return re.sub(r"items: \d+", "items: 60", whole)  # more than a run with `--limit 50` takes


@pytest.fixture(autouse=True)
def checkout(quickstart: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder like a fresh clone, with a recipe of the tiny model in the quickstart's place."""
    monkeypatch.chdir(tmp_path)
    Path(".compresslab").symlink_to(store)
    Path("recipes").mkdir()
    for folder in ("published", "full-size"):
        (Path("recipes") / folder).symlink_to(ROOT / "recipes" / folder)
    for path in ("recipes/quickstart.yaml", "quickstart.yaml"):  # of the pages, and of the commands' own examples
        Path(path).write_text(quickstart)
    Path("models.csv").write_text(TABLE)


def run(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments, input="y\n")
    assert done.exit_code == 0, f"compresslab {' '.join(arguments)}: {done.output}{done.exception}"
    assert done.output, arguments


def test_every_example_works() -> None:
    for name, example in examples():
        if name == "compare":
            run(["run", "recipes/quickstart.yaml", "--limit", "50"])  # its page is the second of those that are compared
        if name not in ELSEWHERE:
            run(shlex.split(example))
    assert Path("my-model/README.md").exists()
    assert Path("olmo-ladder.svg").exists()
    assert Path("mine.json").exists()
    assert Path("reports/index.html").exists()
    assert Path("my-study.yaml").exists()


@pytest.mark.parametrize("page", [README, FIRST_STUDY], ids=lambda page: page.name)
def test_every_command_of_the_pages_works(page: Path, quickstart: str) -> None:
    """In the page's order. What `init` wrote becomes a recipe of the tiny model; of several recipes the first is run."""
    helped = {example for _, example in examples()}
    for arguments in of_compresslab(page):
        if arguments[0] in ELSEWHERE or (arguments[0] == "doctor" and shlex.join(arguments) in helped):
            continue  # the doctor takes long, and the test above ran it
        run([str(min(Path().glob(word))) if "*" in word else word for word in arguments])
        if arguments[0] == "init" and "--from" not in arguments:
            assert Path(arguments[1]).read_text()
            Path(arguments[1]).write_text(quickstart.replace("study: smollm2-quickstart", f"study: {Path(arguments[1]).stem}"))
    assert Path("my-model/README.md").exists()
    assert list(Path("reports").glob("*~items-50"))


def test_the_first_study_prints_what_the_page_shows() -> None:
    """Line by line, but for the kind of spaces and those at the ends."""
    init, plan, run_ = (arguments for arguments in of_compresslab(FIRST_STUDY) if "gemma-2" in arguments[-1])
    said = "".join(CliRunner().invoke(app, arguments).output for arguments in (init, plan, run_))
    printed = {line.replace("\u00a0", " ").rstrip() for line in said.splitlines()}
    (table,) = blocks(FIRST_STUDY, "text")
    assert [line for line in table.splitlines() if line not in printed] == []
    assert "gemma-2: published scores of 3 models; there is nothing to run" in printed


@pytest.mark.parametrize("page", [README, FIRST_STUDY], ids=lambda page: page.name)
def test_the_library_examples_work(page: Path, tiny_folder: Path) -> None:
    """On the tiny model, of whose three layers two are kept."""
    run(["run", "recipes/quickstart.yaml"])
    (code,) = blocks(page, "python")
    assert REAL_MODEL in code
    exec(compile(code.replace(REAL_MODEL, str(tiny_folder)).replace('"keep": 24', '"keep": 2'), page.name, "exec"), {})
    assert any(Path().glob("*/config.json"))
