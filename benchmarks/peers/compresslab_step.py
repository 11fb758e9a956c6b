"""One step of compresslab on a folder, for the benchmarks; the same shape as its neighbours. Arguments: a JSON file of settings."""

import json
import sys
import time
from pathlib import Path

import torch

from compresslab.models.load import load_folder
from compresslab.models.text import TokenSequences
from compresslab.recipe.steps import Step
from compresslab.steps.contract import Context, run

settings = json.loads(Path(sys.argv[1]).read_text())
step = Step.model_validate(settings["step"])
began = time.perf_counter()
base = load_folder(Path(settings["model"]))
loaded = time.perf_counter()
shared = Path(settings["shared"]) if settings.get("shared") else None
if shared is not None and not shared.exists():
    from compresslab.models.calibration.statistics import gather

    gather(base, TokenSequences(torch.tensor(settings["ids"]), ""), shared, grams=True, progress=lambda *_: None)
gathered = time.perf_counter()
run(step.kind, step.config, base, Context(TokenSequences(torch.tensor(settings["ids"]), ""), gathered=shared), Path(settings["output"]))
done = time.perf_counter()
print("RESULT", json.dumps({"load": loaded - began, "gather": gathered - loaded, "quantize": done - gathered}))
