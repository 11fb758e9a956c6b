"""Trackio: a project a study, a run a variant, in the user's cache of Trackio; `trackio show` draws them."""

from __future__ import annotations

from pathlib import Path

import trackio

from compresslab.tracking.tracked import TrackedVariant


class Runs:
    """Writes runs. Trackio numbers the points of a run itself, so each curve has the training step beside the value."""

    def __init__(self, page: Path) -> None:
        del page

    def log(self, variant: TrackedVariant) -> None:
        config = {**variant.params, **{f"reference/{name}": place for name, place in variant.references.items()}}
        trackio.init(project=variant.study, name=variant.name, config=config, embed=False)
        try:
            for name, curve in variant.curves.items():
                for step, value in curve:
                    trackio.log({name: value, f"{name}_step": step})
            trackio.log(variant.metrics)
        finally:
            trackio.finish()
