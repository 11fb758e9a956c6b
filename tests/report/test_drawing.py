"""Charts are drawn in a process of their own: whatever becomes of it, the page is written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.errors import CompresslabWarning, RunFailed
from compresslab.records import StudyRecord, read_record
from compresslab.report.charts import drawing
from compresslab.report.charts.drawing import Drawing, NotDrawnError
from compresslab.report.charts.standalone import to_svg
from compresslab.report.charts.vega import ChartRenderer, shared_renderer
from compresslab.report.html import render, write

from . import studies

SPEC = {"mark": "point", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a", "type": "quantitative"}}}


def test_a_crash_takes_one_chart_with_it() -> None:
    with ChartRenderer() as renderer:
        first = renderer.element(SPEC, "first")
        assert renderer._process is not None
        renderer._process.send_signal(signal.SIGABRT)
        renderer._process.wait()
        second, third = renderer.element(SPEC, "<second>"), renderer.element(SPEC, "third")
        process = renderer._process
    assert (first.startswith("<svg "), third.startswith("<svg ")) == (True, True)
    assert second.startswith("<p>Not drawn: &lt;second>. the process of the chart library ended (SIGABRT)")
    assert (renderer.drawn, len(renderer.lost)) == (3, 1)
    assert process.poll() == 0


def test_a_wrong_specification_ends_no_process() -> None:
    with Drawing() as charts:
        with pytest.raises(NotDrawnError, match="ValueError"):
            charts.svg({"mark": "no such mark"})
        assert charts.svg(SPEC).startswith("<svg ")


def test_pages_that_share_a_process_start_one_and_are_what_each_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = subprocess.Popen

    def popen(command: list[str], **settings: object) -> subprocess.Popen[bytes]:
        started.append(real(command, **settings))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(drawing.subprocess, "Popen", popen)
    study = studies.many(3)
    alone = render(study)
    with shared_renderer():
        pages = [render(study), render(study)]
    assert pages == [alone, alone]
    assert len(started) == 2
    assert [process.poll() for process in started] == [0, 0]


def test_a_library_that_always_crashes_is_not_tried_for_every_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = subprocess.Popen

    def popen(command: list[str], **settings: object) -> subprocess.Popen[bytes]:
        started.append(command)
        return real([sys.executable, "-c", "import os; os.abort()"], **settings)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(drawing.subprocess, "Popen", popen)
    with pytest.warns(CompresslabWarning, match=r"charts of smollm2-quickstart could not be drawn .*SIGABRT"):
        page = render(studies.quickstart())
    assert "Not drawn: " in page
    assert "<svg role" not in page
    assert len(started) == drawing.TRIES


def test_a_library_that_gives_no_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "TIMEOUT", 0)
    with Drawing() as charts, pytest.raises(NotDrawnError, match="gave no answer within 0 s"):
        charts.svg(SPEC)


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_library_that_does_not_read_a_large_specification_is_ended(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "TIMEOUT", 0.5)
    monkeypatch.setattr(drawing, "PROGRAM", code)
    with Drawing() as charts, pytest.raises(NotDrawnError, match=r"gave no answer within 0\.5 s"):
        charts.svg(SPEC | {"description": "x" * 2**24})


def test_what_the_library_said_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PROGRAM", "raise ImportError('no such \\x1b[31mlibrary')")
    with Drawing() as charts, pytest.raises(NotDrawnError, match=r"\(exit code 1\). It said: ImportError: no such .31mlibrary"):
        charts.svg(SPEC)


def test_no_file_of_the_working_directory_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "selectors", "vl_convert", "compresslab"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    with Drawing() as charts:
        assert charts.svg(SPEC).startswith("<svg ")
    assert not (tmp_path / "ran").exists()


def test_a_chart_alone_that_cannot_be_drawn_is_an_error() -> None:
    with pytest.raises(RunFailed, match="the chart could not be drawn: "):
        to_svg({"mark": "no such mark"})


LIMITED = """
import resource, sys
from pathlib import Path
from compresslab.records import StudyRecord, read_record
from compresslab.report.html import write
study = read_record(Path(sys.argv[1]), StudyRecord, "")
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
write(study, Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is not kept elsewhere")
def test_without_the_memory_for_charts_the_page_and_the_record_are_written(tmp_path: Path) -> None:
    page = write(studies.quickstart(), tmp_path / "given")
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, page.with_name("study.json"), tmp_path / "made"], check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "charts of smollm2-quickstart could not be drawn" in run.stderr
    made = tmp_path / "made"
    assert read_record(made / "study.json", StudyRecord, "") == read_record(page.with_name("study.json"), StudyRecord, "")
    assert "Not drawn: " in (made / "index.html").read_text()
