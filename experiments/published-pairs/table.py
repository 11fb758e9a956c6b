"""The published pairs against what the Densing Law papers say of them, as README.md shows it.

python experiments/published-pairs/table.py        # ten seconds, nothing is run
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compresslab.plan.prepare import prepare
from compresslab.records import Comparison, Interval, VariantRecord
from compresslab.report import words
from compresslab.report.answer import answer
from compresslab.studies.published import assemble

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "published"
BELOW, ABOVE = "below (arXiv)", "above (arXiv)"
PAPER = {
    ("llama-3.1-8b", "llama-3.2-3b"): BELOW,
    ("llama-3.1-8b", "llama-3.2-1b"): BELOW,
    ("minitron-4b", "minitron-4b-width"): BELOW,
    ("minitron-4b", "minitron-4b-depth"): BELOW,
    ("gemma-2", "gemma-2-9b"): ABOVE,
    ("gemma-2", "gemma-2-2b"): BELOW,
    ("gemma-2-across-tables", "gemma-2-9b"): ABOVE,
    ("gemma-2-across-tables", "gemma-2-2b"): BELOW,
}
GPTQ = "below (journal, secondary)"


def main() -> None:
    """Print the two tables and the tally."""
    trained, packed = [], []
    for path in sorted(RECIPES.glob("*.yaml")):
        record = assemble(prepare(path))
        for variant in record.variants[1:]:
            if variant.comparisons[0].count == "active":
                print(f"{record.study}: {answer(record).headline}\n")
                continue
            said = PAPER.get((record.study, variant.name))
            how = GPTQ if "GPTQ" in variant.steps[-1].config["how"] else ""
            (trained if said else packed).append((record.study, variant, said or how))
    heads = [
        "study",
        "child",
        "paper",
        "r overall",
        "verdict",
        "density-days",
        "r on one more benchmark",
        "r, one left out",
        "r, straight lines",
        "r, equal weights",
        "r by benchmark",
        "references on the other side of 1",
        "what decides",
    ]
    print(line(heads), line(["---"] * len(heads)), sep="\n")
    for study, variant, said in trained:
        one = variant.comparisons[0]
        straight, alike = (
            next((other.ratio for other in one.robustness if other.choice == choice), None) for choice in ("curve", "weights")
        )
        days = f"{one.density_days.bound} {words.signed(one.density_days.value)}".strip() if one.density_days else ""
        cells = [
            shown(one.ratio),
            judged(one),
            days,
            shown(one.prediction),
            left_out(one),
            shown(straight),
            shown(alike),
            by_task(one),
            flips(one),
            deciding(one),
        ]
        print(line([study, variant.name, said, *cells]))
    heads = ["study", "child", "paper", "rests on", "r by params", "r by bits", "r by time, first hardware", "params, bits, time"]
    print("", line(heads), line(["---"] * len(heads)), sep="\n")
    for study, variant, said in packed:
        one = variant.comparisons[0]
        machine, timed = next(iter(one.ratio_time.items()))
        gains = ", ".join([one.verdict, one.verdict_bits, one.verdict_time[machine]])
        rests = words.on_tasks(one.rests_on).removeprefix("on ") or f"{len(one.rests_on)} benchmarks"
        print(line([study, variant.name, said, rests, shown(one.ratio), shown(one.ratio_bits), f"{machine} {shown(timed)}", gains]))
    print()
    verdicts = {
        "params": [variant.comparisons[0].verdict for _, variant, _ in packed],
        "bits": [variant.comparisons[0].verdict_bits for _, variant, _ in packed],
        "time": [next(iter(variant.comparisons[0].verdict_time.values())) for _, variant, _ in packed],
    }
    for name, given in verdicts.items():
        tally = ", ".join(f"{given.count(word)} {word}" for word in ("raised", "lowered", "inconclusive"))
        print(f"{len(packed)} quantized children by {name}: {tally}")
    gptq = [variant for _, variant, said in packed if said]
    print(f"{sum(map(below, gptq))} of {len(gptq)} GPTQ children have r by params below 1")


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def below(variant: VariantRecord) -> bool:
    """Whether a child's r by params is below 1."""
    ratio = variant.comparisons[0].ratio
    return ratio is not None and ratio.value < 1


def shown(interval: Interval | None) -> str:
    """r with its interval; † where it is extrapolated."""
    if interval is None:
        return "–"
    return f"{words.point(interval, 2)}{'†' if interval.extrapolated else ''} {words.span(interval, 2)}".strip()


def judged(comparison: Comparison) -> str:
    """The verdict, with its mark."""
    place = words.on_tasks(comparison.rests_on) if comparison.verdict != "inconclusive" else ""
    return f"{words.SYMBOLS[comparison.verdict]} {comparison.verdict} {place}{' (fragile)' if comparison.fragile else ''}".strip()


def left_out(comparison: Comparison) -> str:
    """The least and the largest r without one benchmark."""
    values = [one.ratio.value for one in comparison.robustness if one.choice == "task left out" and one.ratio]
    return f"{words.number(min(values), 2)} to {words.number(max(values), 2)}" if values else "–"


def by_task(comparison: Comparison) -> str:
    """r on each benchmark."""
    return ", ".join(f"{task.task} {words.point(task.ratio_by_score, 2)}" for task in comparison.tasks if task.task in comparison.rests_on)


def deciding(comparison: Comparison) -> str:
    """Why the verdict is what it is: where the interval lies, how the benchmarks vote, and whether it hangs on one of them."""
    ratio, count = comparison.ratio, len(comparison.rests_on)
    if ratio is None:
        return comparison.reason
    read = [task.ratio_by_score.value for task in comparison.tasks if task.task in comparison.rests_on and task.ratio_by_score]
    vote = (
        f"{sum(value > 1 for value in read)} of {count} benchmarks above 1"
        if count > 1
        else f"{words.join_names(comparison.rests_on)} alone"
    )
    tau = comparison.heterogeneity
    spread = f", which differ by {words.number(tau, 2)} in ln r beyond their errors" if tau else ""
    if comparison.verdict == "inconclusive":
        return f"the interval holds 1: {vote}{spread}{'' if count > 1 else ', with the scatter of two training runs'}"
    one_out = [one.verdict for one in comparison.robustness if one.choice == "task left out"]
    kept = f"; {sum(verdict == comparison.verdict for verdict in one_out)} of {len(one_out)} stay so with one left out" if one_out else ""
    where = "only a bound is known, and it lies" if ratio.bound else "the interval lies"
    return f"{where} {'above' if comparison.verdict == 'raised' else 'below'} 1: {vote}{spread}{kept}"


def flips(comparison: Comparison) -> str:
    """References whose value lies on the other side of 1."""
    if comparison.ratio is None:
        return ""
    side = comparison.ratio.value > 1
    shown_ = [one for one in comparison.robustness if one.choice == "reference"]
    return ", ".join(one.setting for one in shown_ if one.ratio and (one.ratio.value > 1) != side)


if __name__ == "__main__":
    main()
