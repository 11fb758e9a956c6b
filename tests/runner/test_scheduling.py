"""Which node starts where, as a pure function, and how close its makespans come to what no schedule can beat."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import pytest

from compresslab.runner.schedule import Host, Start, Work, in_order, schedule

ONE = Host("a")


def keys(starts: Sequence[Start]) -> list[str]:
    return [start.work.key for start in starts]


def started(works: Sequence[Work], hosts: Sequence[Host], done: Sequence[str] = (), running: Sequence[Start] = ()) -> list[str]:
    busy = {start.work.key for start in running}
    waiting = [work for work in in_order(works) if work.key not in busy | set(done)]
    return keys(schedule(waiting, set(done), running, hosts))


def test_the_longest_remaining_path_starts_first() -> None:
    works = [Work("short", seconds=50), Work("first", seconds=1), Work("long", ("first",), seconds=100)]
    assert started(works, [ONE]) == ["first"]
    assert started(works, [ONE], done=["first"]) == ["long"]


def test_a_node_waits_for_all_that_it_needs() -> None:
    works = [Work("a"), Work("b"), Work("c", ("a", "b"))]
    assert started(works, [Host("h", 3)]) == ["a", "b"]
    assert started(works, [Host("h", 3)], done=["a"]) == ["b"]
    assert started(works, [Host("h", 3)], done=["a", "b"]) == ["c"]


def test_what_runs_beside_one_another_fits_into_the_memory() -> None:
    works = [Work("a", memory=6e9), Work("b", memory=6e9), Work("c", memory=3e9)]
    assert started(works, [Host("h", 3, memory=10e9)]) == ["a"], "b keeps its memory free, or c would pass it for ever"
    assert started([Work("a", memory=6e9), Work("c", memory=3e9)], [Host("h", 3, memory=10e9)]) == ["a", "c"]


def test_a_node_that_needs_more_than_its_host_has_runs_with_nothing_beside_it() -> None:
    huge = Work("huge", memory=99e9)
    assert started([huge], [Host("h", 2, memory=10e9)]) == ["huge"]
    assert started([huge, Work("x")], [Host("h", 2, memory=10e9)], running=[Start(Work("x"), "h")]) == []


def test_times_are_measured_with_nothing_beside_them_on_the_host() -> None:
    timed, plain = Work("t", timed=True), Work("p", seconds=9)
    hosts = [Host("h", 2)]
    assert started([timed, plain], hosts) == ["p"]
    assert started([timed, plain], hosts, running=[Start(plain, "h")]) == []
    assert started([timed, plain], hosts, done=["p"]) == ["t"]
    assert started([timed, plain], hosts, running=[Start(timed, "h")]) == []
    assert started([timed, plain], [Host("h", 2), Host("i", 2)], running=[Start(plain, "h")]) == ["t"]
    assert started([timed], [Host("h", timed=False)]) == [], "the times of another machine"


def test_a_node_that_ran_out_of_memory_runs_with_nothing_beside_it_on_any_host() -> None:
    work = Work("a", alone=True)
    assert started([work], [Host("h", 2, timed=False)]) == ["a"]
    assert started([work], [Host("h", 2)], running=[Start(Work("b"), "h")]) == []


def test_each_node_has_its_accelerators_to_itself() -> None:
    host = Host("h", 4, ("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
    starts = schedule([Work("a", devices=2), Work("b"), Work("c", devices=2), Work("d")], set(), [], [host])
    given = [device for start in starts for device in start.devices]
    assert keys(starts) == ["a", "b"], "c keeps the last device, and waits for a second one"
    assert len(given) == len(set(given)) == 3
    assert schedule([Work("e", devices=8)], set(), [], [host]) == []


def test_a_host_that_has_lost_a_node_gets_it_again_only_if_there_is_no_other() -> None:
    work = Work("a", not_on=frozenset("h"))
    assert [start.host for start in schedule([work], set(), [], [Host("h"), Host("i")])] == ["i"]
    assert [start.host for start in schedule([work], set(), [], [Host("h")])] == ["h"]


def study(nodes: int, seed: int) -> list[Work]:
    """Chains of steps from one base, each variant evaluated and timed beside its parent."""
    rng = random.Random(seed)
    works, models = [Work("base", seconds=rng.uniform(5, 60))], ["base"]
    for number in range(nodes):
        parent, model = rng.choice(models[-20:]) if rng.random() < 0.5 else "base", f"model {number}"
        works += [
            Work(model, (parent,), rng.lognormvariate(5, 1.2)),
            Work(f"evaluate {number}", (model,), rng.lognormvariate(4, 1)),
            Work(f"time {number}", (model, parent), rng.uniform(5, 20), timed=True),
        ]
        models.append(model)
    return works[:nodes]


def makespan(works: Sequence[Work], hosts: Sequence[Host]) -> float:
    """Seconds in which a study runs, by its estimates."""
    waiting, done, running = in_order(works), set[str](), list[Start]()
    ends: list[tuple[float, str]] = []
    now = 0.0
    while len(done) < len(works):
        for start in schedule(waiting, done, running, hosts):
            heapq.heappush(ends, (now + start.work.seconds, start.work.key))
            running.append(start)
            waiting.remove(start.work)
        now, key = heapq.heappop(ends)
        done.add(key)
        running = [start for start in running if start.work.key != key]
    return now


def lower_bound(works: Sequence[Work], hosts: Sequence[Host]) -> float:
    """What no schedule can beat: the longest path, and all work over all slots. A timed node takes every slot of its host.

    With one host nothing overlaps with the timed nodes, so their seconds come on top of the longest path of the others.
    """
    by_key, paths = {work.key: work for work in works}, dict[str, float]()
    for work in works:  # each after those that it needs
        paths[work.key] = work.seconds + max((paths[key] for key in work.needs if key in by_key), default=0.0)
    slots = sum(host.slots for host in hosts)
    timed = sum(work.seconds for work in works if work.timed)
    others = sum(work.seconds for work in works if not work.timed)
    longest = max(paths[work.key] for work in works if not work.timed)
    bounds = [max(paths.values()), (others + timed * hosts[0].slots) / slots]
    return max(*bounds, timed + longest) if len(hosts) == 1 else max(bounds)


@pytest.mark.parametrize("hosts", [[Host("h", slots)] for slots in (1, 2, 8, 64)] + [[Host(f"h{number}", 8) for number in range(8)]])
def test_a_study_takes_at_most_a_tenth_more_than_the_lower_bound(hosts: list[Host]) -> None:
    for seed in range(5):
        works = study(200, seed)
        assert makespan(works, hosts) <= 1.1 * lower_bound(works, hosts)
