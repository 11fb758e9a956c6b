"""GPTQ by gptqmodel, for benchmarks/gptq.py; runs in an interpreter that has it. Arguments: a JSON file of settings."""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # 7.6 dies on two cores without it

from gptqmodel import GPTQModel, QuantizeConfig

settings = json.loads(Path(sys.argv[1]).read_text())
began = time.perf_counter()
model = GPTQModel.load(settings["model"], QuantizeConfig(bits=settings["bits"], group_size=settings["group_size"]))
calibration = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in settings["ids"]]
loaded = time.perf_counter()
model.quantize(calibration, batch_size=4)
quantized = time.perf_counter()
model.save(settings["output"])
saved = time.perf_counter()
print("RESULT", json.dumps({"load": loaded - began, "quantize": quantized - loaded, "save": saved - quantized}))
