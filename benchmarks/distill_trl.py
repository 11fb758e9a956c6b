"""TRL's GKDTrainer in the race of distill.py; runs in an environment of its own, without compresslab."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from trl.experimental.gkd import GKDConfig, GKDTrainer

SEQUENCES = 4


class Batches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The sequences of the benchmark as GKDTrainer's collator would hand them over, none of them masked."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        ids = self.ids[number]
        ones = torch.ones_like(ids)
        return {"input_ids": ids, "attention_mask": ones, "labels": ids, "prompts": ids[:1], "prompt_attention_mask": ones[:1]}


class Trainer(GKDTrainer):  # type: ignore[misc]
    """The same trainer over the benchmark's batches, in their order."""

    ids: torch.Tensor

    def get_train_dataloader(self) -> Any:
        """Batches of four sequences."""
        return torch.utils.data.DataLoader(Batches(self.ids), batch_size=SEQUENCES, shuffle=False)

    def compute_loss(self, *given: Any, **settings: Any) -> Any:
        """Its own, noted for the report."""
        loss = super().compute_loss(*given, **settings)
        self.last = float(loss[0] if isinstance(loss, tuple) else loss)
        return loss


class InTurn(TrainerCallback):  # type: ignore[misc]
    """Does a step when it is told to."""

    def __init__(self) -> None:
        self.trainer: Any = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """All is loaded."""
        print("ready", flush=True)
        self._wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Tell, and wait."""
        spent = [time.perf_counter() - self.started, time.process_time() - self.worked]
        print("step " + json.dumps([*spent, self.trainer.last]), flush=True)
        self._wait()

    def _wait(self) -> None:
        sys.stdin.readline()
        self.started, self.worked = time.perf_counter(), time.process_time()


def main(folder: Path, steps: int, learning_rate: float) -> None:
    """Forward KL (beta 0) on the given text alone (lmbda 0)."""
    student = AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.bfloat16)
    settings = GKDConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=SEQUENCES,
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        beta=0.0,
        lmbda=0.0,
        temperature=1.0,
        bf16=True,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_dropout=False,
        save_strategy="no",
        report_to=[],
        logging_steps=10_000,
        disable_tqdm=True,
    )
    messages = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * (steps * SEQUENCES)
    callback = InTurn()
    trainer = Trainer(
        model=student,
        teacher_model=teacher,
        args=settings,
        train_dataset=Dataset.from_dict({"messages": messages}),
        processing_class=AutoTokenizer.from_pretrained(folder / "student"),
        callbacks=[callback],
    )
    trainer.ids = torch.load(folder / "ids.pt")
    callback.trainer = trainer
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
