"""A user's own table of scores: read, checked with line numbers, and studied like one that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.catalog.hardware import load_hardware
from compresslab.errors import BadInput
from compresslab.plan.prepare import prepare
from compresslab.plan.user_tables.table import read_table
from compresslab.recipe.places import RecipeError
from compresslab.studies.published import assemble

BENCHMARKS = (
    ("MMLU", "5", "acc", 66.6, 60.1),
    ("GSM8K", "4", "em", 55.1, 45.1),
    ("MATH", "4", "em", 20.5, 15.5),
    ("HumanEval", "0", "pass@1", 37.2, 30.2),
    ("BBH", "3", "em", 61.1, 51.1),
    ("ARC-C 25-shot", "25", "acc_norm", 57.8, 52.8),
    ("HellaSwag 10-shot", "10", "acc_norm", 82.0, 77.0),
)
HEADER = "model,params,benchmark,shots,metric,score"
RECIPE = """
study: mine
base: {{model: published:New-8B}}
variants:
  new-4b: [{{adopt: {{model: published:New-4B}}}}]
evaluate: {{source: published, table: {table}}}
density: {{reference: qwen2.5, hardware: [{hardware}]}}
"""


def lines(divisor: float = 1.0) -> list[str]:
    rows = [HEADER]
    for model, params, column in (("New-8B", "7.5e9", 3), ("New-4B", "3.8e9", 4)):
        rows += [f"{model},{params},{one[0]},{one[1]},{one[2]},{one[column] / divisor:g}" for one in BENCHMARKS]
    return rows


def written(folder: Path, rows: list[str], name: str = "scores.csv") -> Path:
    (path := folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def recipe(folder: Path, table: Path, hardware: str = "") -> Path:
    (path := folder / "recipe.yaml").write_text(RECIPE.format(table=table, hardware=hardware))
    return path


def problem(folder: Path, rows: list[str]) -> str:
    with pytest.raises(BadInput) as caught:
        read_table(written(folder, rows))
    return str(caught.value)


def test_seven_benchmarks_of_two_unknown_models_give_a_verdict_and_a_page_without_torch(tmp_path: Path) -> None:
    path = recipe(tmp_path, written(tmp_path, lines()))
    code = (
        "import sys, time; started = time.process_time(); from compresslab.studies.run_study import run_study; "
        f"record = run_study({str(path)!r}, reports={str(tmp_path / 'R')!r}); (one,) = record.variants[1].comparisons; "
        "print(one.verdict, len(one.rests_on), 'torch' in sys.modules, time.process_time() - started)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verdict, tasks, torch, seconds = done.stdout.split()
    assert (verdict, tasks, torch) == ("inconclusive", "7", "False")
    assert float(seconds) < 5  # of the processor, since other tests run beside it
    assert (tmp_path / "R" / "mine" / "index.html").is_file()


def test_shares_and_percent_a_mark_of_bytes_and_empty_lines_are_read_alike(tmp_path: Path) -> None:
    percent = read_table(written(tmp_path, lines()))
    shares = written(tmp_path, [*lines(100.0)[:5], "", *lines(100.0)[5:], ",,,,,"], "shares.csv")
    shares.write_bytes(b"\xef\xbb\xbf" + shares.read_bytes().replace(b"\n", b"\r\n"))
    other = read_table(shares)
    for model, scores in percent.scores.items():
        assert [score.score for score in scores] == pytest.approx([score.score for score in other.scores[model]])
    assert percent.sizes == other.sizes


def test_a_size_may_come_from_a_config_and_bits(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 300, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "intermediate_size": 128, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    head = "model,config,bits,benchmark,shots,metric,score"
    table = read_table(written(tmp_path, [head, "a,config.json,,MMLU,5,acc,60", "b,config.json,4.25,MMLU,5,acc,60", "b,,,BBH,3,em,50"]))
    assert table.sizes["a"][0].counted == 4 * (3 * 64 * 128 + 3 * 64 * 64 + 2 * 64) + 64 + 300 * 64
    assert table.sizes["a"][1].layers == 4
    assert table.sizes["b"][1].weight_bits < 16
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    assert "line 2: a: " in (said := problem(tmp_path, [head, "a,config.json,,MMLU,5,acc,60"]))
    assert "not how many bits a weight takes with its scales; state them in the column bits" in said
    assert "425 bits a weight are not possible" in problem(tmp_path, [head, "a,config.json,425,MMLU,5,acc,60"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.replace(",", ";") for row in rows], "its columns are separated by semicolons; save it with commas"),
        (lambda rows: [row.replace(",", "\t") for row in rows], "separated by tabs"),
        (lambda rows: [rows[0].replace(",shots", ""), *rows[1:]], "line 1: the table lacks shots; its columns are"),
        (lambda rows: [rows[0].replace("params", "size"), *rows[1:]], "lacks params or config"),
        (lambda rows: [rows[0] + ",colour", *rows[1:]], "line 1: colour is no column of a table"),
        (lambda rows: [*rows[:3], rows[3] + ",1", *rows[4:]], "line 4: 7 cells, and the table has 6 columns"),
        (lambda rows: [*rows[:3], rows[3].rpartition(",")[0] + ",", *rows[4:]], "line 4: score is empty; leave the row out"),
        (lambda rows: [*rows[:2], rows[2].replace(",4,", ",,"), *rows[3:]], "line 3: shots is empty; write how many examples"),
        (lambda rows: [*rows[:2], rows[2].replace(",4,", ",four,"), *rows[3:]], "line 3: shots is 'four'; write the number of examples"),
        (lambda rows: [*rows[:2], rows[2].replace(",em,", ",,"), *rows[3:]], "line 3: metric is empty; write how answers were scored"),
        (lambda rows: [*rows[:2], rows[2].replace("55.1", "55%"), *rows[3:]], "line 3: score is '55%'; it must be a number"),
        (lambda rows: [*rows[:2], rows[2].replace("55.1", "nan"), *rows[3:]], "line 3: score is 'nan'"),
        (
            lambda rows: [*rows[:2], rows[2].replace("55.1", "0.551"), *rows[3:]],
            "line 3: score is 0.551, and 66.6 on line 2: shares and percent",
        ),
        (lambda rows: [*rows[:2], rows[2].replace("7.5e9", "3e9"), *rows[3:]], "two models under the name New-8B: params is 7.5e9 and 3e9"),
        (lambda rows: [row.replace("7.5e9", "") for row in rows], "line 2: the size of New-8B is not known"),
        (lambda rows: [row.replace("7.5e9", "7.5") for row in rows], "line 2: New-8B: 7.5 is no number of parameters"),
        (lambda rows: [*rows, rows[1]], "line 16: New-8B has MMLU in this setting already, on line 2"),
        (
            lambda rows: [row.replace("New-4B", "New-4B-Int4") for row in rows],
            "New-4B-Int4: the name says that weights are quantized (Int4)",
        ),
        (lambda rows: rows[:1], "has no rows"),
        (lambda rows: [*rows[:3], '"open', *rows[4:]], "no CSV"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, change, message: str) -> None:
    assert message in problem(tmp_path, change(lines()))


def test_all_mistakes_are_told_once_at_the_tables_place_in_the_recipe(tmp_path: Path) -> None:
    rows = lines()
    rows[2], rows[4] = rows[2].replace(",4,", ",,"), rows[4].replace("37.2", "0.372")
    with pytest.raises(RecipeError) as caught:
        prepare(recipe(tmp_path, written(tmp_path, rows)))
    told = [text.partition("scores.csv, ")[2] for text in caught.value.problems]
    assert [text.partition(";")[0] for text in told] == [
        "line 3: shots is empty",
        "line 5: score is 0.372, and 66.6 on line 2: shares and percent are mixed",
    ]
    assert all("recipe.yaml:6:" in text for text in caught.value.problems)


def test_a_model_or_a_table_that_is_not_there(tmp_path: Path) -> None:
    table = written(tmp_path, [row.replace("New-4B", "New-4b") for row in lines()])
    with pytest.raises(RecipeError, match=r"has no model 'New-4B'; did you mean 'New-4b'"):
        prepare(recipe(tmp_path, table))
    with pytest.raises(RecipeError, match=r"gone\.csv cannot be read .*check the path"):
        prepare(recipe(tmp_path, tmp_path / "gone.csv"))


def test_a_benchmark_in_another_setting_is_not_read_and_named(tmp_path: Path) -> None:
    rows = [row.replace("MMLU,5,", "MMLU,0,").replace("ARC-C 25-shot,25,", "ARC-C 25-shot,0,") for row in lines()]
    record = assemble(prepare(recipe(tmp_path, written(tmp_path, rows))))
    (one,) = record.variants[1].comparisons
    assert not {"MMLU", "ARC-C 25-shot"} & {task.task for task in one.tasks}
    assert any("Not read of New-4B" in note and "MMLU" in note and "ARC-C 25-shot" in note for note in record.notes)


def test_times_need_dimensions(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has params alone of New-8B; give its config, or hardware"):
        prepare(recipe(tmp_path, written(tmp_path, lines()), "a100-80g"))


def test_a_profile_of_the_users_own_machine_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "gpu.yaml").write_text("flops: 9.9e14\nbandwidth: 3e12\nsource: the data sheet\n")
    found = load_hardware(str(path))
    assert (found.name, found.flops, found.bandwidth, found.source) == ("gpu", 9.9e14, 3e12, "the data sheet")
    assert not found.has_own_factors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops: 1e14\nbandwith: 1e12\n", "bandwith|bandwidth"),
        ("flops: fast\nbandwidth: 1e12\n", "flops: input should be a valid number"),
        ("flops: -1\nbandwidth: 1e12\n", "flops: input should be greater than 0"),
        ("- 1\n", "is no hardware profile; write flops"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_profile_with_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    (path := tmp_path / "gpu.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        load_hardware(str(path))
    with pytest.raises(BadInput, match="cannot be read"):
        load_hardware(str(tmp_path / "gone.yaml"))
