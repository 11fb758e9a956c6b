"""How the record of an imported study is told from that of a study that was run."""

from __future__ import annotations

from compresslab.records import StudyRecord

EVALUATED = "evaluated"
"""The detail of an imported model's step that names its files. Steps of a study that was run have none."""


def is_imported(record: StudyRecord) -> bool:
    """Whether all models of a study were evaluated by lm-eval and imported."""
    return bool(record.variants) and all(variant.steps and EVALUATED in variant.steps[-1].details for variant in record.variants)
