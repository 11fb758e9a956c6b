"""What the command line says of a study of published scores, which has no results in a store."""

from __future__ import annotations

import json
import re

import pytest
from calling import Call


@pytest.fixture
def published(call: Call) -> Call:
    """The command line in a folder with the reported study gemma-2."""
    assert call("init", "--from", "gemma-2").code == 0
    assert call("run", "gemma-2.yaml").code == 0
    return call


def test_ls_lists_it(published: Call) -> None:
    out = published("ls").out
    assert "gemma-2: 3 variants, last run 20" in out
    assert re.search(r"gemma-2-9b +9\.242 B +18\.5 GB +published scores; no model", out)
    rows = json.loads(published("ls", "--json").out)
    assert [(row["variant"], row["published"], row["model"]) for row in rows] == [
        ("base", True, None),
        ("gemma-2-9b", True, None),
        ("gemma-2-2b", True, None),
    ]


def test_show_prints_a_variant_for_people(published: Call) -> None:
    out = published("show", "gemma-2", "gemma-2-9b").out
    assert out.startswith("gemma-2-9b of gemma-2: published Gemma-2-9B (distilled by Google)\nmade from base\n9.242 B parameters;")
    assert re.search(r"MMLU +14042 +71\.3 % ± 0\.4", out)
    assert "density on qwen2.5, D0 = 200 tokens a parameter\n" in out
    assert "against base, its parent: raised by parameters" in out
    record = json.loads(published("show", "gemma-2", "gemma-2-9b", "--json").out)
    ratio = next(entry["ratio"] for entry in record["comparisons"] if entry["relation"] == "parent")
    assert re.search(rf"parameters +{ratio['value']:.2f} +\[{ratio['low']:.2f}, {ratio['high']:.2f}\] +raised", out)


def test_export_and_verify_say_what_it_is(published: Call) -> None:
    exported = published("export", "gemma-2", "gemma-2-9b", "out")
    assert exported == (2, "", "error: gemma-2 is a study of published scores: no model was run, so there is none to export\n")
    verified = published("verify", "gemma-2.yaml")
    assert (verified.code, verified.out) == (2, "")
    assert "gemma-2.yaml is a study of published scores: nothing was run" in verified.err
