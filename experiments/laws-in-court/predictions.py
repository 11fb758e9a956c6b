"""Predictions of published laws against what was measured: all published pairs, recipe.yaml here, the committed page, and other study.json.

    python experiments/laws-in-court/predictions.py [study.json ...]

Prints one line for each prediction with a measurement, then a summary for each law. Takes half a minute and no torch.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from compresslab.density.published_laws.predictions import published_laws
from compresslab.plan.prepare import prepare
from compresslab.records import Interval, LawPrediction, PublishedLaws, StudyRecord
from compresslab.studies import published

ROOT = Path(__file__).parents[2]
SMOLLM2 = Path(__file__).with_name("smollm2.json")
"""The laws of the study of recipe.yaml, as its study.json has them."""

COMMITTED = (ROOT / "reports" / "smollm2-quickstart" / "study.json",)
TOKENS = {"offline:smollm2-135m-instruct": 2e12}
"""SmolLM2-135M's pretraining, for records that do not state it: Ben Allal et al. 2025, arXiv 2502.02737."""


LOSSLESS = 0.99
"""The predicted ratio of sizes above which a law says that nothing is lost."""


def laws_of(path: Path) -> PublishedLaws:
    """The laws of a study's record, worked out here if the record is from before there were any."""
    record = StudyRecord.model_validate_json(path.read_bytes())
    return record.laws or published_laws(record.variants, TOKENS)


def studies(paths: Sequence[Path]) -> Iterator[tuple[str, PublishedLaws]]:
    """Name and laws of every study."""
    for recipe in sorted((ROOT / "recipes" / "published").glob("*.yaml")):
        record = published.assemble(prepare(recipe))
        if record.laws is not None:
            yield record.study, record.laws
    yield "laws-in-court", PublishedLaws.model_validate_json(SMOLLM2.read_bytes())
    for path in (*COMMITTED, *paths):
        yield path.parent.name, laws_of(path)


def shown(interval: Interval | None) -> str:
    """A value with its ends."""
    return "-" if interval is None else f"{interval.bound}{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def summary(rows: Sequence[LawPrediction]) -> str:
    """How far a law is off, and how often its interval and the measured one have a value in common."""
    pairs = [(row.predicted, row.measured, row.residual) for row in rows if row.predicted and row.measured and row.residual is not None]
    residuals = [residual for _, _, residual in pairs]
    meet = sum(predicted.low <= measured.high and measured.low <= predicted.high for predicted, measured, _ in pairs)
    spread = math.sqrt(statistics.fmean(one**2 for one in residuals))
    inside, middle = sum(not row.outside for row in rows), statistics.median(residuals)
    return (
        f"{len(pairs)} with a residual, {inside} inside the fit; median {middle:+.2f}, root mean square {spread:.2f}; "
        f"intervals meet in {meet}"
    )


def main() -> None:
    """Print all predictions and their summaries."""
    by_law: dict[str, list[LawPrediction]] = {}
    for name, found in studies([Path(one) for one in sys.argv[1:]]):
        for row in found.predictions:
            if row.residual is not None and row.predicted is not None:
                # At 8 bits every law says that nothing is lost, which tells little.
                lossless = row.quantity == "size ratio" and row.predicted.value > LOSSLESS
                by_law.setdefault(f"{row.law}, {row.quantity}{', predicted lossless' if lossless else ''}", []).append(row)
                print(f"{name:36} {row.variant:20} {row.law:13} {shown(row.predicted):24} {shown(row.measured):24} {row.residual:+.2f}")
        for fit in found.refits:
            values = ", ".join(
                f"{one.name} {one.value:.3g} [{one.low:.3g}, {one.high:.3g}] (published {one.published})" for one in fit.coefficients
            )
            print(f"{name:36} {fit.method:20} {fit.law:13} fitted again: {values}, scatter {fit.scatter:.2g}, left out {fit.left_out}")
    for law, rows in by_law.items():
        print(f"{law}: {summary(rows)}")


if __name__ == "__main__":
    main()
