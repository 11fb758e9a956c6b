"""The published pairs against what the Densing Law papers say of them, as README.md shows it.

python experiments/published-pairs/table.py        # ten seconds, nothing is run
"""

from __future__ import annotations

from pathlib import Path

from compresslab.records import Comparison, Interval, VariantRecord
from compresslab.report import words
from compresslab.runner.published import assemble
from compresslab.runner.run import prepare

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "published"
BENCHMARKS = ("MMLU", "BBH", "MATH", "HumanEval", "MBPP")
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
        record = assemble(prepare(path), path)
        for variant in record.variants[1:]:
            said = PAPER.get((record.study, variant.name))
            (trained if said else packed).append(
                (record.study, variant, said or (GPTQ if "GPTQ" in variant.steps[-1].config["how"] else ""))
            )
    print("| study | child | paper | r overall | verdict | " + " | ".join(BENCHMARKS) + " | flips |")
    print("|---" * (6 + len(BENCHMARKS)) + "|")
    for study, variant, said in trained:
        comparison = variant.comparisons[0]
        print(
            f"| {study} | {variant.name} | {said} | {shown(comparison.ratio)} | {judged(comparison)} | {by_task(comparison)} | {flips(comparison)} |"
        )
    print()
    print("| study | child | paper | r by params | r by bits | r by time, first hardware | what a user gains |")
    print("|---" * 7 + "|")
    for study, variant, said in packed:
        comparison = variant.comparisons[0]
        machine, timed = next(iter(comparison.ratio_time.items()))
        words_ = f"{comparison.verdict} | {comparison.verdict_bits} | {comparison.verdict_time[machine]}"
        print(
            f"| {study} | {variant.name} | {said} | {shown(comparison.ratio)} | {shown(comparison.ratio_bits)} | {machine} {shown(timed)} | {words_} |".replace(
                words_, words_.replace(" | ", ", ")
            )
        )
    print()
    for name, pick in (
        ("params", lambda c: c.verdict),
        ("bits", lambda c: c.verdict_bits),
        ("time", lambda c: next(iter(c.verdict_time.values()))),
    ):
        tally = [pick(variant.comparisons[0]) for _, variant, _ in packed]
        print(
            f"{len(packed)} quantized children by {name}: "
            + ", ".join(f"{tally.count(word)} {word}" for word in ("raised", "lowered", "inconclusive"))
        )
    point = sum(below(variant) for _, variant, said in packed if said)
    print(f"{point} of {sum(bool(said) for _, _, said in packed)} GPTQ children have r by params below 1")


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
    return f"{words.SYMBOLS[comparison.verdict]} {comparison.verdict}{' (fragile)' if comparison.fragile else ''}"


def by_task(comparison: Comparison) -> str:
    """r on each benchmark, empty where the table has none."""
    found = {task.task: task.ratio_by_score for task in comparison.tasks}
    return " | ".join(words.point(found[name], 2) if name in found else "" for name in BENCHMARKS)


def flips(comparison: Comparison) -> str:
    """Benchmarks and other choices whose value lies on the other side of 1."""
    if comparison.ratio is None:
        return ""
    side = comparison.ratio.value > 1
    found = [
        f"{one.setting}" for one in comparison.robustness if one.ratio and (one.ratio.value > 1) != side and one.choice != "task left out"
    ]
    return ", ".join(found)


if __name__ == "__main__":
    main()
