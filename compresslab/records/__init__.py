"""The frozen records in which the rooms meet: what a step did, what a variant scored, how dense it is.

Everything here is plain data that survives a round trip through JSON. A record holds only what is decided by its
inputs; seconds, memory and dates live in `Cost`, which is stored apart, so that the same work twice gives the same bytes.
"""

from __future__ import annotations

from compresslab.records.base import Record, StoredRecord
from compresslab.records.densities import (
    Alternative,
    Comparison,
    Count,
    Curve,
    Density,
    Estimator,
    Interval,
    TaskComparison,
    TaskDensity,
    Verdict,
)
from compresslab.records.fidelity import Fidelity, GeneratedAnswers, Mean, TextDivergence
from compresslab.records.laws import LawCoefficient, LawPrediction, LawRefit, PublishedLaws
from compresslab.records.models import AttentionLayers, Cost, Counted, LeftAlone, Shape, Size, StepRecord
from compresslab.records.noise import DivergenceFloor, Noise, NoiseFloor
from compresslab.records.notes import RunNote, StudyNote
from compresslab.records.overlaps import TaskOverlap, TextOverlap
from compresslab.records.reading import UnreadableRecord, read_record
from compresslab.records.scores import ItemDetail, ItemScores, LostItem, MachineSpeed, TaskScore, Timing
from compresslab.records.study import Failure, Provenance, StudyRecord, VariantRecord

__all__ = [
    "Alternative",
    "AttentionLayers",
    "Comparison",
    "Cost",
    "Count",
    "Counted",
    "Curve",
    "Density",
    "DivergenceFloor",
    "Estimator",
    "Failure",
    "Fidelity",
    "GeneratedAnswers",
    "Interval",
    "ItemDetail",
    "ItemScores",
    "LawCoefficient",
    "LawPrediction",
    "LawRefit",
    "LeftAlone",
    "LostItem",
    "MachineSpeed",
    "Mean",
    "Noise",
    "NoiseFloor",
    "Provenance",
    "PublishedLaws",
    "Record",
    "RunNote",
    "Shape",
    "Size",
    "StepRecord",
    "StoredRecord",
    "StudyNote",
    "StudyRecord",
    "TaskComparison",
    "TaskDensity",
    "TaskOverlap",
    "TaskScore",
    "TextDivergence",
    "TextOverlap",
    "Timing",
    "UnreadableRecord",
    "VariantRecord",
    "Verdict",
    "read_record",
]
