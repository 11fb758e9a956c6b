"""lm-eval's command line with the model `compresslab`: `python -m compresslab.evaluation --model compresslab --model_args pretrained=…`."""

from __future__ import annotations

import sys

from lm_eval.__main__ import cli_evaluate

from compresslab.errors import CompresslabError
from compresslab.evaluation import registered  # noqa: F401, importing it puts the model into lm-eval's registry


def main() -> None:
    """Run lm-eval's command line."""
    try:
        cli_evaluate()
    except CompresslabError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
