"""The store against a model of it: commits, crashes, damage, two holders, garbage collection, verification, and clocks that are wrong."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from compresslab.records import MachineSpeed, StudyNote
from compresslab.store.leases import Lease
from compresslab.store.store import Store, write_record
from compresslab.store.upkeep import damages, remove, unused

KEYS = ("a" * 24, "b" * 24, "c" * 24)
DAMAGES = ("cut", "changed", "gone", "digests cut", "digests of another form", "more", "folder emptied", "a file in its place")


class StoreModel(RuleBasedStateMachine):
    """Two processes that share a store; `held` says which of them has which lease, `whole` which results can be used."""

    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.stores = [Store(self.root), Store(self.root)]
        self.whole: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.held: dict[str, tuple[int, Lease]] = {}
        self.used: set[str] = set(KEYS)
        self.stores[0].remember("study", StudyNote(recipe="r", finished="", variants={}, keys=sorted(self.used)))

    def teardown(self) -> None:
        if hasattr(self, "root"):
            for who, lease in self.held.values():
                self.stores[who].leases.release(lease)
            shutil.rmtree(self.root)

    @rule(target=leases, who=st.integers(0, 1), key=st.sampled_from(KEYS))
    def acquire(self, who: int, key: str) -> object:
        lease = self.stores[who].leases.acquire(key)
        assert (lease is None) == (key in self.held)
        if lease is None:
            return multiple()
        self.held[key] = (who, lease)
        return key

    @rule(key=consumes(leases))
    def release(self, key: str) -> None:
        if key in self.held:
            who, lease = self.held.pop(key)
            self.stores[who].leases.release(lease)

    @rule(key=leases, content=st.integers(0, 3))
    def commit(self, key: str, content: int) -> None:
        if key not in self.held:
            return
        store = self.stores[self.held[key][0]]
        with store.stage(key) as staged:
            write_record(staged, MachineSpeed(bandwidth=1.0, flops=2.0, threads=content, device="cpu", dtype="float32"))
            (staged / "more").write_text("whole")
            store.commit(key, staged, MachineSpeed)
        self.whole.setdefault(key, content)  # a result that can be used stays
        self.damaged.discard(key)

    @rule(key=leases)
    def crash_while_making(self, key: str) -> None:
        """The kernel drops the lock; the files stay."""
        if key not in self.held:
            return
        who, lease = self.held.pop(key)
        store = self.stores[who]
        store.staging.mkdir(exist_ok=True)
        (store.staging / f"{key}-left").mkdir(exist_ok=True)
        store.leases._held.discard(lease)
        lease._lock.close()

    @rule(key=st.sampled_from(KEYS), how=st.sampled_from(DAMAGES))
    def damage(self, key: str, how: str) -> None:
        if key not in self.whole:
            return
        folder = self.stores[0].folder(key)
        if how == "cut":
            os.truncate(folder / "more", 2)
        elif how == "changed":
            (folder / "more").write_text("WHOLE")
        elif how == "gone":
            (folder / "record.json").unlink()
        elif how == "digests cut":
            os.truncate(folder / "digests.json", 20)
        elif how == "digests of another form":
            (folder / "digests.json").write_text('{"version": 2, "files": []}')
        elif how == "more":
            (folder / "record.json").write_text("[]")
        else:
            shutil.rmtree(folder)
            folder.mkdir() if how == "folder emptied" else folder.write_text("")
        del self.whole[key]
        self.damaged.add(key)

    @rule(used=st.sets(st.sampled_from(KEYS)))
    def another_study(self, used: set[str]) -> None:
        self.used = used
        self.stores[1].remember("study", StudyNote(recipe="r", finished="", variants={}, keys=sorted(used)))

    @rule(who=st.integers(0, 1), begun=st.sets(st.sampled_from(KEYS)))
    def collect_garbage(self, who: int, begun: set[str]) -> None:
        """A study begins to use some results between the question and the answer."""
        store = self.stores[who]
        listed = unused(store)
        self.another_study(self.used | begun)
        remove(listed, store)
        for key in set(KEYS) - self.used - set(self.held):
            self.whole.pop(key, None)
            self.damaged.discard(key)
        assert not [path for path in store.staging.glob("*") if path.name[:24] not in self.held]

    @rule(who=st.integers(0, 1))
    def verify(self, who: int) -> None:
        assert {damage.key for damage in damages(self.stores[who], dict.fromkeys(KEYS, MachineSpeed))} == self.damaged

    @rule(who=st.integers(0, 1))
    def sweep(self, who: int) -> None:
        self.stores[who].sweep()
        assert {path.name[:24] for path in self.stores[who].staging.glob("*")} <= set(self.held)
        assert {path.stem for path in self.stores[who].leases.folder.glob("*")} <= set(self.held)

    @rule(seconds=st.sampled_from([-(10**8), 0, 10**9]))
    def clocks_are_wrong(self, seconds: int) -> None:
        for path in self.root.rglob("*"):
            os.utime(path, (max(0, 10**9 + seconds),) * 2)

    @invariant()
    def what_is_there_is_whole(self) -> None:
        if not hasattr(self, "root"):
            return
        for store in self.stores:
            found = {key: record.threads for key in KEYS if (record := store.find(key, MachineSpeed))}
            assert found == self.whole
            assert {key for key in KEYS if store.has(key)} == set(self.whole)


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStoreModel = pytest.mark.slow(TestStoreModel)
