"""Calling the command line as the shell would."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import RECIPE, Call, Said

from compresslab.cli import main as command_line


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Calls `main` as the shell would, in an empty folder and on a terminal of 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("COMPRESSLAB_STORE", raising=False)

    def run(*arguments: str | Path) -> Said:
        monkeypatch.setattr("sys.argv", ["compresslab", *map(str, arguments)])
        try:
            command_line.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path
