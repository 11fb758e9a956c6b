from compresslab.density import Measured as Measured
from compresslab.density import Reference as Reference
from compresslab.density import assess as assess
from compresslab.density import compare as compare
from compresslab.errors import BadInput as BadInput
from compresslab.errors import CompresslabError as CompresslabError
from compresslab.errors import RunFailed as RunFailed
from compresslab.evaluation.tree_lm import TreeLM as TreeLM
from compresslab.recipe.load import load as load_recipe
from compresslab.recipe.schema import Recipe as Recipe
from compresslab.records import Comparison as Comparison
from compresslab.records import Density as Density
from compresslab.records import Interval as Interval
from compresslab.records import Shape as Shape
from compresslab.records import Size as Size
from compresslab.records import StepRecord as StepRecord
from compresslab.records import StudyRecord as StudyRecord
from compresslab.records import TaskScore as TaskScore
from compresslab.records import VariantRecord as VariantRecord
from compresslab.report import tables as tables
from compresslab.report.html import write as write_report
from compresslab.runner.executors.cluster import connected as cluster
from compresslab.studies.compress import compress as compress
from compresslab.studies.read_study import read_study as read_study
from compresslab.studies.run_study import plan_study as plan_study
from compresslab.studies.run_study import run_study as run_study
from compresslab.studies.study import Study as Study

__version__: str
__all__ = [
    "BadInput",
    "Comparison",
    "CompresslabError",
    "Density",
    "Interval",
    "Measured",
    "Recipe",
    "Reference",
    "RunFailed",
    "Shape",
    "Size",
    "StepRecord",
    "Study",
    "StudyRecord",
    "TaskScore",
    "TreeLM",
    "VariantRecord",
    "assess",
    "cluster",
    "compare",
    "compress",
    "load_recipe",
    "plan_study",
    "read_study",
    "run_study",
    "tables",
    "write_report",
]
