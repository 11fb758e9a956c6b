"""The tidy tables say what the record says."""

from __future__ import annotations

import pytest

from compresslab.records import Interval
from compresslab.report import tables
from compresslab.report.words import count, duration, number, signed, size, span

from . import studies
from .test_laws import study_of_widths


def test_variants_has_one_row_a_variant_with_its_own_size() -> None:
    frame = tables.variants(studies.with_failure()).set_index("variant")
    assert len(frame) == 8
    assert frame.loc["depth-24", "counted"] == 113_300_000
    assert frame.loc["depth-24-healed", "verdict"] == "raised"
    assert frame.isna().loc["gptq", ["counted", "bpb", "ratio", "verdict"]].all()


def test_ratios_and_densities_cover_every_count_of_n() -> None:
    whole = studies.quickstart()
    assert set(tables.ratios(whole)["basis"]) == {"params", "bits", "time"}
    assert set(tables.densities(whole)["hardware"]) == {"", "this-machine", "rtx-4090", "h100-sxm"}


def test_times_carries_measured_and_modelled_side_by_side() -> None:
    frame = tables.times(studies.quickstart()).set_index(["variant", "kind", "hardware"])["ratio"]
    assert frame[("bnb-nf4", "measured", "this-machine")] == pytest.approx(1.42)
    assert frame[("bnb-nf4", "modelled", "this-machine")] == pytest.approx(0.36)
    assert frame[("depth-24-healed-nf4", "modelled", "h100-sxm")] == pytest.approx(0.30 / 0.83)


def test_means_are_missing_where_a_task_is() -> None:
    root = studies.base()
    partial = studies.child(root, root, "partial", studies.step("prune", "depth", 1e8, 16), 1.0, 0.9, tasks=studies.TASKS[:2])
    assert tables.variants(studies.study([root, partial]))["bpb"].isna().tolist() == [False, True]


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_without_rows_has_the_columns_of_one_with_rows(name: str) -> None:
    empty, full = tables.TABLES[name](studies.study([])), tables.TABLES[name](study_of_widths())
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert len(full) or name in ("robustness", "overlaps", "fidelity", "divergences", "noise")


def test_task_differences_and_costs_are_long_tables() -> None:
    whole = studies.quickstart()
    assert len(tables.task_differences(whole)) == 6 * 2 * 4 * 2
    assert len(tables.costs(whole)) == 21
    assert len(tables.scores(whole)) == 28


def test_an_interval_shows_on_which_side_of_one_it_ends() -> None:
    assert span(Interval(value=1.1, low=1.0004, high=1.31), 2) == "[1.0004, 1.3]"
    assert span(Interval(value=0.07, low=0.0602, high=0.0766), 2) == "[0.060, 0.077]"


def test_numbers_are_written_as_people_read_them() -> None:
    values = {0.9846: "0.985", 12.3456: "12.3", 1234.5: "1,230", 0.0: "0", 0.0999999: "0.100", -0.5: "−0.500", 3e-7: "3.0e−7"}
    assert {value: number(value) for value in values} == values
    assert [count(value) for value in (134_515_008, 6_900_000_000, 60_000, 12)] == ["134.5 M", "6.9 B", "60 k", "12"]
    assert [size(value) for value in (269e6, 512)] == ["269 MB", "512 B"]
    assert [duration(value) for value in (0.004, 0.42, 12.3, 200.0, 7500.0)] == ["4.0 ms", "0.42 s", "12.3 s", "3 min 20 s", "2 h 5 min"]
    assert [signed(value) for value in (0.5, -0.5, 0.0)] == ["+0.50", "−0.50", "0"]
