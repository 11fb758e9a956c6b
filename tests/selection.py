"""Which tests are fast: what `make check` runs.

A test is fast unless it is marked `slow`, `real` or `browser`, runs a study in worker processes, or is one of many over architectures or
methods and its own is not one of those below.
"""

from __future__ import annotations

import functools

import pytest

# One with nothing special, and one with tied embeddings and norms of queries and keys.
FAST_ARCHITECTURES = {"llama", "qwen3"}
NOT_FAST = ("slow", "real", "browser")
# Their kernels come with a library that takes seconds to import.
SLOW_METHODS = {"gptq", "gptq 3 bits asymmetric", "awq"}
# The recipe that the tests of the runner run.
STUDY = "recipe_text"


def is_fast(item: pytest.Item) -> bool:
    """Whether `--fast` runs a test."""
    if any(item.get_closest_marker(name) for name in NOT_FAST) or not isinstance(item, pytest.Function) or STUDY in item.fixturenames:
        return False
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    named = {value for value in parameters if isinstance(value, str)}
    return named & architectures() <= FAST_ARCHITECTURES and not named & SLOW_METHODS


@functools.cache
def architectures() -> frozenset[str]:
    """The names by which the suites over architectures know them."""
    from models.tiny import ARCHITECTURES

    from compresslab.evaluation.engines import exactness

    return frozenset(ARCHITECTURES) | exactness.TREE_MASK_ARCHITECTURES | exactness.CACHE_COPY_ARCHITECTURES
