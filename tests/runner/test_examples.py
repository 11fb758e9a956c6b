"""Every command's help has an example, and the examples work, one after the other, on a tiny model in the quickstart's place."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compresslab.cli import reference
from compresslab.cli.main import COMMANDS, app

# Its example takes a recipe of several models; tests/runner/test_reference_build.py runs one.
ELSEWHERE = {"reference build"}
ORDER = ["fetch", "validate", "plan", "run", "report", "ls", "show", "compare", "verify", "export", "gc"]
TABLE = "run,params,tokens,task,bpb\n" + "".join(
    f"r{size}-{tokens},{size}e8,{tokens}e9,easy,{0.4 + 0.9 / size**0.35 + 0.5 / tokens**0.3:.5f}\n"
    for size in (1, 2, 4, 8, 16)
    for tokens in (10, 40, 160)
)


def examples() -> Iterator[tuple[str, str]]:
    """Each command with the example in its help."""
    commands = {**COMMANDS, **{f"reference {info.name}": info.callback for info in reference.app.registered_commands}}
    for name in sorted(commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        found = re.search(r"^ *Example: compresslab (.+)$", commands[name].__doc__ or "", re.MULTILINE)  # type: ignore[union-attr]
        assert found, f"the help of {name} has no example"
        assert found[1].startswith(name)
        yield name, found[1]


def test_every_example_works(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    text = recipe.read_text().replace("study: tiny", "study: smollm2-quickstart")
    start, end = text.index("  pruned:"), text.index("evaluate:")
    Path("recipes/quickstart.yaml").write_text(
        f"{text[:start]}  nf4: [{{quantize: {{method: rtn, bits: 8, group_size: 32}}}}]\n{text[end:]}"
    )
    Path("models.csv").write_text(TABLE)
    for name, example in examples():
        if name == "compare":
            shutil.copytree("reports", "quick")  # what a run with other settings and `--reports quick` leaves
        if name not in ELSEWHERE:
            done = CliRunner().invoke(app, shlex.split(example))
            assert done.exit_code == 0, f"{example}: {done.output}{done.exception}"
            assert done.output, example
    assert Path("my-model/README.md").exists()
    assert Path("olmo-ladder.svg").exists()
    assert Path("mine.json").exists()
    assert Path("reports/index.html").exists()
    assert Path("my-study.yaml").exists()
