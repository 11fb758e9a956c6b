"""How dense a model is: the reference curve, effective parameters, inference time, and verdicts on child against parent.

Works on records alone, without torch. `assess` is what a study calls; `Reference.load("olmo-ladder").effective_params(
task="arc_easy", bpb=0.93)` reads a single value off the ruler.
"""

from compresslab.density.compare import GROWTH_PER_DAY, Measured, assess, density_days
from compresslab.density.inference_time import Hardware, hardware_names, load_hardware, n_time, seconds
from compresslab.density.reference import REACH, Reference, TaskFit

__all__ = [
    "GROWTH_PER_DAY",
    "REACH",
    "Hardware",
    "Measured",
    "Reference",
    "TaskFit",
    "assess",
    "density_days",
    "hardware_names",
    "load_hardware",
    "n_time",
    "seconds",
]
