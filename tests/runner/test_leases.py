"""Leases: one holder a key, among threads, processes, containers and machines."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compresslab.store import leases as module
from compresslab.store.leases import Leases

HOLD = """
import sys, time
from pathlib import Path
from compresslab.store.leases import Leases
lease = Leases(Path(sys.argv[1])).acquire("key")
print("held" if lease else "denied", flush=True)
time.sleep(60 if lease else 0)
"""


def holding(folder: Path, *before: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([*before, sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease of "key"."""
    with holding(tmp_path) as process:
        yield process
        process.kill()


def test_one_holder_at_a_time_and_nothing_left_after_it(tmp_path: Path) -> None:
    first, second = Leases(tmp_path), Leases(tmp_path)
    with first.held("key") as lease:
        assert lease
        assert first.acquire("key") is None
        assert second.acquire("key") is None
        other = second.acquire("another")
        assert other
        second.release(other)
    assert list(tmp_path.iterdir()) == []
    with second.held("key") as lease:
        assert lease


def test_the_kernel_drops_the_lease_of_a_process_that_is_killed(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    ours = Leases(tmp_path)
    assert ours.acquire("key") is None
    assert ours.holder("key").startswith(f"process {other.pid} on ")
    other.send_signal(signal.SIGKILL)
    other.wait()
    with ours.held("key") as lease:
        assert lease
        assert ours.holder("key").startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_of_another_pid_namespace_is_seen(tmp_path: Path) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system gives no namespaces")
    with holding(tmp_path, *apart) as process:
        assert Leases(tmp_path).acquire("key") is None
        process.kill()
        process.wait()
        with Leases(tmp_path).waited("key") as lease:
            assert lease


def of_another_machine(folder: Path, number: int = 1, **stated: str) -> Path:
    """A lease file of a machine whose locks are not seen here."""
    file = folder / f"key.{number}"
    file.write_text(json.dumps({"token": "theirs", "locks": "others", "machine": "far", "host": "far", "process": 1, **stated}))
    return file


def touch(file: Path, ago: float) -> None:
    os.utime(file, (time.time() - ago,) * 2)


def test_a_lease_of_another_machine_is_taken_over_after_silence_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, now = Leases(tmp_path), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    theirs = of_another_machine(tmp_path)
    for second in range(0, 3 * int(module.SILENCE), 30):
        now[0] = second
        touch(theirs, 500 - second)  # their clock is minutes behind
        assert ours.acquire("key") is None
    now[0] += module.SILENCE
    assert ours.acquire("key") is None
    now[0] += 2
    lease = ours.acquire("key")
    assert lease
    assert not theirs.exists()
    ours.release(lease)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_lease_that_a_power_failure_left_is_free_for_a_short_command_too(tmp_path: Path, same: bool) -> None:
    theirs = of_another_machine(tmp_path, machine=module._machine() if same else "far")
    touch(theirs, module.SILENCE / 2)
    assert Leases(tmp_path).acquire("key") is None
    touch(theirs, 2 * module.SILENCE if same else 2 * module.LONG_SILENCE)
    with Leases(tmp_path).held("key") as lease:
        assert lease


def test_locks_of_another_mount_of_the_file_system_are_not_trusted(tmp_path: Path) -> None:
    """Where `flock` is local to a mount, two containers of one kernel both get the lock."""
    of_another_machine(tmp_path, locks=f"{module.kernel()} 1")
    assert Leases(tmp_path).acquire("key") is None


def test_a_disk_that_cannot_be_read_for_a_moment_takes_no_lease_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Leases(tmp_path)
    with ours.held("key") as lease, monkeypatch.context() as patch:
        assert lease

        def failing(*_: object) -> None:
            raise OSError(errno.EIO, "no luck")

        patch.setattr(module, "read_json", failing)
        lease.beat()
        assert not lease.lost


def test_a_lease_that_nobody_refers_to_is_dropped(tmp_path: Path) -> None:
    """An interruption may come between any two statements."""
    ours = Leases(tmp_path)
    lost = [ours.acquire("key")]
    with pytest.warns(ResourceWarning):
        lost.clear()
    with ours.held("key") as lease:
        assert lease


def test_a_disk_without_room_leaves_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "link", full)
        with pytest.raises(OSError, match="full"):
            Leases(tmp_path).acquire("key")
    assert not list(tmp_path.glob("key.[0-9]"))
    with Leases(tmp_path).held("key") as lease:
        assert lease


def test_a_file_system_without_second_names_has_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(module.os, "link", denied)
    with Leases(tmp_path).held("key") as lease:
        assert lease
        assert Leases(tmp_path).acquire("key") is None


def test_who_was_silent_for_too_long_learns_that_the_lease_is_lost(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    lease = ours.acquire("key")
    assert lease
    lease.beat()
    assert not lease.lost
    theirs = of_another_machine(tmp_path, 2)
    (tmp_path / "key.1").unlink()
    lease.beat()
    assert lease.lost
    ours.release(lease)
    assert theirs.exists()


def test_the_later_of_two_machines_that_take_over_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def slower(part: Path, file: Path) -> None:
        of_another_machine(tmp_path, 2)  # it saw the same and was quicker by a whole takeover
        link(part, file)

    monkeypatch.setattr(module.os, "link", slower)
    assert Leases(tmp_path).acquire("key") is None
    assert [file.name for file in tmp_path.glob("key.[0-9]")] == ["key.2"]


def test_a_file_system_without_locks_has_leases_by_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.fcntl, "flock", flock)
    first, second = Leases(tmp_path), Leases(tmp_path)
    one = first.acquire("key")
    assert one
    assert second.acquire("key") is None
    now[0] = module.SILENCE + 1
    other = second.acquire("key")
    assert other
    one.beat()
    assert one.lost
    first.release(one)
    second.release(other)


def test_a_holder_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.02)
    ours = Leases(tmp_path)
    lease = ours.acquire("key")
    assert lease
    os.utime(tmp_path / "key.1", (0, 0))
    deadline = time.monotonic() + 10
    while (tmp_path / "key.1").stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ours.release(lease)


def test_files_of_dead_holders_are_swept(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    ours = Leases(tmp_path)
    ours.sweep()
    assert len(list(tmp_path.iterdir())) == 2
    other.kill()
    other.wait()
    ours.sweep()
    assert list(tmp_path.iterdir()) == []


def _drop(lost: list[object]) -> None:
    lost.clear()
    time.sleep(0.2)


def test_a_lease_that_nobody_refers_to_is_dropped_also_after_a_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.02)
    ours = Leases(tmp_path)
    lost = [ours.acquire("key")]
    os.utime(tmp_path / "key.1", (0, 0))
    deadline = time.monotonic() + 10
    while (tmp_path / "key.1").stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # between two beats, or in one
    with pytest.warns(ResourceWarning):
        _drop(lost)
    with ours.held("key") as lease:
        assert lease
