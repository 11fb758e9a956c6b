"""Round to the nearest level of GPTQ's own symmetric grid, for benchmarks/gptq.py. Arguments: a JSON file of settings."""

import json
import sys
import time
from pathlib import Path

import torch

from compresslab.algorithms.grid import grid_of
from compresslab.models.anatomy import decoder_layers, linear_layers
from compresslab.models.formats.gptq import SCALES
from compresslab.models.load import load_folder
from compresslab.models.save import save

settings = json.loads(Path(sys.argv[1]).read_text())
base = load_folder(Path(settings["model"]))
began = time.perf_counter()
with torch.no_grad():
    for linear in linear_layers(decoder_layers(base.model)).values():
        groups = linear.weight.float().reshape(-1, settings["group_size"])
        grid = grid_of(groups, settings["bits"], SCALES, symmetric=True)
        linear.weight.copy_(grid.weight(grid.codes(groups, settings["bits"])).view_as(linear.weight))
rounded = time.perf_counter()
save(base, Path(settings["output"]))
print("RESULT", json.dumps({"quantize": rounded - began, "save": time.perf_counter() - rounded}))
