"""Completion in the shell knows studies, variants, recipes, references, tasks, methods, and the paths of --set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from calling import QUICKSTART, Call

Offered = Callable[[str], list[str]]


@pytest.fixture
def offered(call: Call, monkeypatch: pytest.MonkeyPatch) -> Offered:
    """What fish offers for the last word of a line, in a folder with the reported study gemma-2."""
    assert call("init", "--from", "gemma-2").code == 0
    assert call("run", "gemma-2.yaml").code == 0
    Path("q.yaml").write_text(QUICKSTART.read_text())

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("_COMPRESSLAB_COMPLETE", "complete_fish")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"compresslab {line}")
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        done = call()
        assert done.err == ""
        return [word.partition("\t")[0] for word in done.out.splitlines() if word]

    return ask


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("sho", {"show"}),
        ("show ge", {"gemma-2"}),
        ("status ge", {"gemma-2"}),
        ("compare gem", {"gemma-2"}),
        ("export gemma-2 gemma", {"gemma-2-9b", "gemma-2-2b"}),
        ("show gemma-2 gemma-2-9", {"gemma-2-9b"}),
        ("run q.yaml --only depth-24-healed-", {"depth-24-healed-nf4"}),
        ("verify q.yaml nf", {"nf4"}),
        ("recipes gemma-2-a", {"gemma-2-across-tables"}),
        ("init --from quan", {"quantization"}),
        ("init --compress depth,n", {"depth,nf4"}),
        ("reference show olmo", {"olmo-ladder"}),
        ("reference show olmo-ladder --task arc_e", {"arc_easy"}),
        ("plan q.yaml --on h100", {"h100-sxm"}),
        ("run q.yaml --set evaluate.it", {"evaluate.items="}),
        ("run q.yaml --set density.workload.", {"density.workload.batch=", "density.workload.prompt="}),
        ("run q.yaml --set variants.nf4", {"variants.nf4[0].quantize.method="}),
        ("run q.yaml --set variants.nf4[0].quantize.method=bnb", {"variants.nf4[0].quantize.method=bnb-nf4"}),
        ("run q.yaml --set evaluate.tasks=[csqa,arc_e", {"evaluate.tasks=[csqa,arc_easy"}),
        ("run q.yaml --set evaluate.tasks=[gsm8k_c", {"evaluate.tasks=[gsm8k_cot"}),
        ("run q.yaml --set compute=b", {"compute=bfloat16"}),
        ("run q.yaml --set density.measure=f", {"density.measure=false"}),
        ("run q.yaml --set density.hardware=[h1", {"density.hardware=[h100-sxm"}),
    ],
)
def test_what_is_offered(line: str, some: set[str], offered: Offered) -> None:
    words = offered(line)
    last = line.rpartition(" ")[2]
    assert some <= set(words), words
    assert [word for word in words if not word.startswith(last)] == []


@pytest.mark.parametrize(
    "line", ["show nothing ", "run absent.yaml --only v", "reference show nothing --task a", "run q.yaml --set nowhere="]
)
def test_what_cannot_be_looked_up_offers_nothing_and_says_nothing(line: str, offered: Offered) -> None:
    assert set(offered(line)) <= {"base"}


def test_the_script_of_a_shell_is_installed_for_the_user(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # The shell is given, not the one that runs the tests: `make` runs sh, which has no completion.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert call("--install-completion", "bash").code == 0
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_COMPRESSLAB_COMPLETE=complete_bash" in script.read_text()
