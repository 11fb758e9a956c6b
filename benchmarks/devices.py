"""Training by one process and by several: seconds a step, what each process holds, and by how much the losses differ.

    python benchmarks/devices.py --processes 1 2 --steps 3

A Llama of 33M random weights is retrained in float32. On a processor the processes share its threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from compresslab.machine.processor import threads
from compresslab.runner.messages import Progressed, Scored
from compresslab.runner.ranks.group import together
from compresslab.runner.ranks.member import Send

LENGTH, BATCH = 256, 1024
SHAPE = {
    "vocab_size": 16384,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


def train(folder: Path, steps: int, rank: int, send: Send) -> None:
    """What each process does: train, and write what it held."""
    import torch
    from torch.distributed.tensor import DTensor
    from transformers import AutoConfig, AutoModelForCausalLM

    from compresslab.methods.settings import Optimizer
    from compresslab.models.text import TokenSequences
    from compresslab.runner.provenance import peak_memory
    from compresslab.steps.retrain import language_modelling
    from compresslab.steps.training import trainer
    from compresslab.steps.training.parallel import NotFirst

    held: list[int] = []

    class Counting(torch.optim.AdamW):
        """Counts the bytes of weights, gradients and moments of this process."""

        def step(self, _: None = None) -> None:  # type: ignore[override]
            super().step()
            weights = self.param_groups[0]["params"]
            tensors = [tensor for weight in weights for tensor in (weight, weight.grad, *self.state[weight].values())]
            held.append(sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors))

    torch.optim.AdamW = Counting  # type: ignore[misc]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE))
    ids = torch.randint(0, SHAPE["vocab_size"], (steps * BATCH // LENGTH, LENGTH))
    optimizer = Optimizer(batch_tokens=BATCH, micro_batch_tokens=BATCH // 2)
    began: list[float] = []

    def progress(share: float, text: str, amount: Any = None) -> None:
        began.append(time.perf_counter())
        send(Progressed(share, text, amount))

    told: dict[str, Any] = {}
    try:
        text = TokenSequences(ids, "", torch.arange(len(ids)))
        told["losses"] = trainer.train(model, text, trainer.TrainSettings(optimizer, 0, progress), language_modelling).losses
    except NotFirst:
        pass
    told |= {"held": held[-1], "peak": peak_memory(), "seconds": (began[-1] - began[0]) / (len(began) - 1) * (len(began) / steps)}
    (folder / f"{rank}.json").write_text(json.dumps(told))


def hear(_: Progressed | Scored) -> None:
    """Nothing is shown while it runs."""


def main() -> None:
    """Print one line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    first: list[float] = []
    for size in given.processes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            together(size, partial(train, folder, given.steps), hear, device="cpu", threads=threads(), log=folder / "log")
            told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]
        losses = told[0]["losses"]
        first = first or losses
        held = " and ".join(f"{one['held'] / 1e6:.0f}" for one in told)
        peaks = " and ".join(f"{one['peak'] / 1e9:.2f}" for one in told)
        apart = max(abs(a - b) for a, b in zip(first, losses, strict=True))
        print(
            f"{size}: {told[0]['seconds']:.1f} s a step; weights, gradients and moments {held} MB; peak RSS {peaks} GB; "
            f"losses {losses}, at most {apart:.1g} from the first line's"
        )


if __name__ == "__main__":
    main()
