"""What `compresslab import` refuses, each with one message that says what to do; and files of several models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compresslab.cli.main import app
from compresslab.errors import BadInput
from compresslab.studies.imported.files import read_models
from compresslab.studies.imported.page import write_imported
from compresslab.studies.imported.samples import read_task
from compresslab.studies.imported.study import ImportRequest, import_study

from .lm_eval_results import SIZES, Results, refused, sample, write_samples


def test_published_benchmarks_in_their_setting_are_read_by_value(results: Results) -> None:
    tasks = {"mmlu": {"acc": 0.55, "shots": 5, "items": 14042, "error": 0.004}, "gsm8k": {"acc": 0.5, "shots": 5}}
    record = import_study(ImportRequest([results("x/a"), results("x/b", tasks)], ["a"], SIZES))
    (comparison,) = record.variants[1].comparisons
    assert [task.task for task in comparison.tasks] == ["MMLU"]
    assert comparison.ratio is not None
    assert comparison.ratio.low < comparison.ratio.value < comparison.ratio.high
    assert any("Left out, because not every model has them: gsm8k" in note for note in record.notes)
    assert record.variants[0].density is not None
    assert record.variants[0].density.reference in ("qwen2.5", "llama-1-2")


def test_a_benchmark_in_another_setting_is_read_by_no_reference(results: Results) -> None:
    tasks = {"mmlu": {"acc": 0.55, "shots": 0}}
    record = import_study(ImportRequest([results("a", tasks), results("b", tasks)], ["a"], SIZES))
    assert record.variants[1].comparisons[0].ratio is None
    assert any("reads none of mmlu" in note for note in record.notes)


def test_a_smaller_standard_error_gives_a_narrower_ratio(results: Results) -> None:
    widths = []
    for error in (0.004, 0.02):
        files = [
            results(name, {"mmlu": {"acc": acc, "shots": 5, "items": 14042, "error": error}}) for name, acc in (("a", 0.6), ("b", 0.55))
        ]
        ratio = import_study(ImportRequest(files, ["a"], SIZES)).variants[1].comparisons[0].ratio
        assert ratio is not None
        widths.append(ratio.high / ratio.low)
    assert widths[0] < widths[1]


def test_chains_have_their_own_parents(results: Results) -> None:
    files = [results(name, {"mmlu": {"acc": acc, "shots": 5}}) for name, acc in (("a", 0.6), ("b", 0.55), ("c", 0.5))]
    record = import_study(ImportRequest(files, ["a", "c=b"], [*SIZES, "c=1e9@4.5"], copies=["c"]))
    assert [(variant.name, variant.parent) for variant in record.variants] == [("base", ""), ("b", "base"), ("c", "b")]
    c = record.variants[2]
    assert [(one.against, one.runs_apart) for one in c.comparisons] == [("b", 0), ("base", 2)]
    assert c.size is not None
    assert c.size.effective_bits == 4.5


def test_two_files_of_one_model_are_one_model(results: Results) -> None:
    first = results("a", {"mmlu": {"acc": 0.6, "shots": 5}})
    second = results("a", {"gsm8k": {"acc": 0.6, "shots": 5}}, time="2026-11-27T00-00-00.1")
    (model,) = read_models([first, second])
    assert sorted(model.tasks) == ["gsm8k", "mmlu"]


def test_two_models_under_one_name(results: Results) -> None:
    files = [results("x/a"), results("y/a")]
    refused(files, rf"two models under the name a: .*; give one of them another name: NAME={files[1]}")
    assert [model.name for model in read_models([files[0], f"other={files[1]}"])] == ["a", "other"]


def test_the_same_task_twice(results: Results) -> None:
    refused([results("a"), results("a", time="2026-11-27T00-00-00.1")], "both have mmlu of a; leave one of them out")


def test_which_model_is_the_parent_must_be_said(results: Results) -> None:
    files = [results("a"), results("b")]
    refused(files, r"which model is the parent\? Add --parent NAME; there are a, b", parents=())
    refused(files, "no model is called z", parents=["z"])
    refused(files, "has a parent itself", parents=["a", "a=b"])
    refused(files[:1], "all files are of one model, a")
    refused([*files, results("c")], "b, c come from one another in a circle", parents=["a", "b=c", "c=b"], sizes=[*SIZES, "c=1e9"])
    refused([files[0], f"base={files[1]}"], "a study calls its first model base")
    refused([files[0], f"BASE={files[1]}"], "a study calls its first model base")
    refused(files, "--study 'a b' is no name: write a name of at most 100 letters", study="a b")
    refused(files, "there is no reference 'none'", reference="none")


def test_results_of_lm_eval_before_0_4(results: Results, tmp_path: Path) -> None:
    (old := tmp_path / "old.json").write_text(json.dumps({"results": {"mmlu": {"acc": 0.3, "acc_stderr": 0.01}}, "versions": {"mmlu": 1}}))
    refused([results("a"), f"b={old}"], r"has no configs, n-shot, which lm-eval 0.4 writes; evaluate again with it")
    unfiltered = results("b", results={"mmlu": {"acc": 0.3, "acc_stderr": 0.01}})
    refused([results("a"), unfiltered], "the scores of mmlu name no filter .* as before lm-eval 0.4")


def test_a_file_that_is_no_result(results: Results, tmp_path: Path) -> None:
    (other := tmp_path / "config.json").write_text("{}")
    refused([results("a"), str(other)], "is no file of results of lm-eval: it has no `results`")
    (broken := tmp_path / "results_x.json").write_text('{"results": ')
    refused([results("a"), str(broken)], "cannot be read as results of lm-eval")
    refused([results("a"), str(tmp_path)], "is a folder; name the files in it")
    refused([results("a"), str(tmp_path / "gone.json")], "there is no file")


def test_a_score_in_percent(results: Results) -> None:
    refused(
        [results("a"), results("b", {"mmlu": {"acc": 55.0, "shots": 5, "items": 14042}})],
        "acc,none of mmlu is 55; lm-eval writes shares between 0 and 1",
    )


def test_settings_that_differ(results: Results) -> None:
    files = [results("a"), results("b", versions={"mmlu": 2.0})]
    refused(files, "the version of the task of a is '1.0', that of b '2.0'; evaluate both alike")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system_instruction": "Be good."}, "the system instruction of a is '', that of b 'Be good.'"),
        ({"chat_template": "{{x}}"}, "the chat template of a is 'none was applied', that of b 'one was applied'"),
        ({"config": {"fewshot_seed": 7}}, "the fewshot_seed of a is 'None', that of b '7'"),
        ({"n-samples": {"mmlu": {"effective": 100}}}, "mmlu: a answered 14042 items, b 100; evaluate both with the same --limit"),
        (
            {"configs": {"mmlu": {"output_type": "multiple_choice", "target_delimiter": " ", "doc_to_text": "Q"}}},
            "the doc_to_text of a is 'null', that of b 'Q'",
        ),
        (
            {"configs": {"mmlu": {"output_type": "multiple_choice", "target_delimiter": " ", "generation_kwargs": {"max_gen_toks": 9}}}},
            "the generation_kwargs of a",
        ),
        (
            {"configs": {"mmlu": {"output_type": "multiple_choice", "target_delimiter": " ", "fewshot_delimiter": "#"}}},
            "the fewshot_delimiter of a",
        ),
    ],
)
def test_models_that_were_asked_otherwise_are_refused(results: Results, change: dict[str, Any], message: str) -> None:
    refused([results("a"), results("b", **change)], f"{re.escape(message)}")


def test_examples_in_turns_of_a_chat_or_not(results: Results) -> None:
    files = [results(name, chat_template="{{x}}", fewshot_as_multiturn=name == "a") for name in ("a", "b")]
    refused(files, "the fewshot_as_multiturn of a is 'True', that of b 'False'")


def test_a_long_setting_is_shown_where_it_differs(results: Results) -> None:
    files = [results(name, configs={"mmlu": {"output_type": "multiple_choice", "doc_to_text": "x" * 300 + name}}) for name in ("a", "b")]
    refused(files, "the doc_to_text of a is '…x{20}a', that of b '…x{20}b'")


def test_other_metrics_are_refused(results: Results) -> None:
    files = [results("a"), results("b", results={"mmlu": {"exact_match,flexible-extract": 0.5}})]
    refused(files, "mmlu: acc,none of a, exact_match,flexible-extract of b are other metrics or filters of answers")


def test_other_dtypes_and_backends_are_told_on_the_page(results: Results) -> None:
    files = [
        results(name, config={"model_dtype": f"torch.{dtype}", "model": name}) for name, dtype in (("a", "float32"), ("b", "bfloat16"))
    ]
    notes = import_study(ImportRequest(files, ["a"], SIZES)).notes
    assert any("in other dtypes: a (float32), b (bfloat16). A difference" in note for note in notes)
    assert any("by other backends of lm-eval: a (a), b (b)" in note for note in notes)


def test_a_page_is_replaced_by_an_import_of_the_same_models_and_tasks_alone(results: Results, tmp_path: Path) -> None:
    reports = tmp_path / "reports"

    def imported(*files: str, **request: Any) -> Path:
        return write_imported(import_study(ImportRequest(files, ["a"], ["a=4e9", *request.pop("sizes", ["b=2e9"])], **request)), reports)

    page = imported(results("a"), results("b"))
    assert imported(results("a"), results("b"), sizes=["b=1.9e9"]) == page
    with pytest.raises(BadInput, match=r"was imported of a, b on MMLU, and this one is of a, c on MMLU; name this study with --study"):
        imported(results("a"), results("c"), sizes=["c=2e9"])
    other = {"gsm8k": {"acc": 0.5, "shots": 5}}
    with pytest.raises(BadInput, match="was imported of a, b on MMLU, and this one is of a, b on gsm8k"):
        imported(results("a", other), results("b", other))
    record = page.parent / "study.json"
    kept = record.read_text()
    (page.parent / "recipe.yaml").write_text("study: mine\n")
    with pytest.raises(BadInput, match=r"recipe\.yaml is there already and was changed"):
        imported(results("a"), results("b"))
    (page.parent / "recipe.yaml").unlink()
    record.write_text(kept.replace('"evaluated"', '"other"'))
    with pytest.raises(BadInput, match="has the page of a study of the same name that was not imported"):
        imported(results("a"), results("b"))
    assert record.read_text() == kept.replace('"evaluated"', '"other"')


def test_no_task_is_left_after_filtering(results: Results) -> None:
    files = [results("a", {"mmlu": {"acc": 0.6}}), results("b", {"gsm8k": {"acc": 0.6}})]
    refused(files, "no task is left that every model answered: a has mmlu; b has gsm8k")
    refused(files, "--task piqa: no file has it; there are mmlu, gsm8k", tasks=["piqa"])


def test_samples_of_one_model_alone(results: Results) -> None:
    files = [results(name, {"pets": {"acc": 0.5}}) for name in ("a", "b")]
    samples = write_samples(files[0], [sample(0, "0", [-1.0, -2.0, -3.0], 1.0)])
    refused([*files, samples], r"samples of a were given, and no task has those of every model \(see b\)")


def test_samples_of_no_results(results: Results) -> None:
    files = [results("a", {"pets": {"acc": 0.5}}), results("b", {"pets": {"acc": 0.5}})]
    row = sample(0, "0", [-1.0, -2.0, -3.0], 1.0)
    refused([*files, write_samples(files[0], [row], time="2020-01-01T00-00-00.5")], "belongs to none of the results")
    refused([*files, write_samples(files[0], [row], task="cats")], "has no task cats")
    (renamed := Path(files[0]).parent / "mine.jsonl").write_text("{}\n")
    refused([*files, str(renamed)], "is not named samples_<task>_<time>.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not json\n", "line 1: no JSON"),
        ('{"doc_id": 0}\n', "line 1: no target, arguments, resps, filter, metrics, which lm-eval 0.4 writes"),
        (sample(0, "0", [-3.0, -1.0, -2.0], 1.0), "choose option 1, its target is 0, and its acc is 1.0"),
        (sample(0, "cat", [-3.0, -1.0, -2.0], 1.0), "acc is 1, and its target 'cat' is none of its options"),
        ({**sample(0, "0", [-1.0, -2.0, -3.0], 1.0), "resps": []}, "its resps are not as lm-eval 0.4 writes them"),
        ({**sample(0, "0", [-1.0, -2.0, -3.0], 1.0), "resps": [[["x"]]] * 3}, "is no log-likelihood"),
        ({**sample(0, "0", [-1.0, -2.0, -3.0], 1.0), "arguments": {"x": 1}}, "its arguments are not as lm-eval 0.4 writes them"),
        (sample(0, "0", [float("nan"), -2.0, -3.0], 1.0), "not finite"),
    ],
)
def test_samples_that_lm_eval_did_not_write(results: Results, row: Any, message: str) -> None:
    files = [results(name, {"pets": {"acc": 0.5}}) for name in ("a", "b")]
    refused([*files, *(write_samples(file, [row]) for file in files)], message)


def test_other_questions_do_not_pair(results: Results) -> None:
    files = [results(name, {"pets": {"acc": 0.5}}) for name in ("a", "b")]
    rows = [sample(number, "0", [-1.0, -2.0, -3.0], 1.0) for number in range(12)]
    changed = [*rows[:5], sample(5, "0", [-1.0, -2.0, -3.0], 1.0, ("fox", "dog", "moon")), *rows[6:]]
    samples = [write_samples(files[0], rows), write_samples(files[1], changed)]
    refused([*files, *samples], "do not pair: 1 of 12 items ask something else, first item 5")


def test_documents_pair_in_any_order_and_under_chat_templates(results: Results) -> None:
    files = [results(name, {"pets": {"acc": 0.5}}, chat_template=name) for name in ("a", "b")]
    rows = [sample(number, "0", [-1.0 - number % 2, -1.5, -3.0], float(number % 2 == 0)) for number in range(12)]
    templated = json.loads(json.dumps(rows[::-1]).replace("Question", "<user> Question"))
    samples = [write_samples(files[0], rows), write_samples(files[1], templated)]
    record = import_study(ImportRequest([*files, *samples], ["a"], SIZES))
    (task,) = record.variants[1].comparisons[0].tasks
    assert (task.items, task.lost, task.gained) == (12, 0, 0)


def test_a_target_is_read_as_index_or_as_text_whichever_gives_the_accuracy(results: Results) -> None:
    file = results("a", {"pets": {"acc": 0.5}})
    rows = [sample(0, "1", [-3.0, -2.0, -1.0], 1.0, ("0", "2", "1")), sample(1, "2", [-3.0, -2.0, -1.0], 0.0, ("0", "2", "1"))]
    (model,) = read_models([file, write_samples(file, rows)])
    _, items = read_task(model, model.tasks["pets"], "pets")
    assert items.gold == [2, 1]


def test_the_right_one_of_two_questions_follows_from_the_accuracy(results: Results) -> None:
    file = results("a", {"pets": {"acc": 0.5}})
    rows = []
    for number, acc in enumerate((1.0, 0.0)):
        row = sample(number, "is warm", [-1.0, -2.0], acc, ("is warm", "is warm"))
        row["arguments"]["gen_args_1"]["arg_0"] = f"Other {number}"
        rows.append(row)
    (model,) = read_models([file, write_samples(file, rows)])
    _, items = read_task(model, model.tasks["pets"], "pets")
    assert items.gold == [0, 1]
    assert items.choice == [0, 0]


def test_the_command_says_it_in_one_line(results: Results) -> None:
    shown = CliRunner().invoke(app, ["import", results("a"), results("b"), "--parent", "a"])
    assert isinstance(shown.exception, BadInput)
    assert shown.exception.exit_code == 2


def test_the_command_writes_the_page(results: Results, tmp_path: Path) -> None:
    files = [results("a"), results("b", {"mmlu": {"acc": 0.55, "shots": 5, "items": 14042, "error": 0.004}})]
    sizes = [part for size in SIZES for part in ("--size", size)]
    shown = CliRunner().invoke(
        app, ["import", *files, "--parent", "a", *sizes, "--reports", str(tmp_path / "reports")], catch_exceptions=False
    )
    assert shown.exit_code == 0
    assert "Nothing was run. Report:" in shown.output
    page = tmp_path / "reports" / "a-imported" / "index.html"
    assert "MMLU" in page.read_text(encoding="utf-8")
