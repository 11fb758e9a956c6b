from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.catalog import stock_tasks as stock_room
from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation import olmes_requests, tasks
from compresslab.evaluation.harness import evaluate_model
from compresslab.evaluation.scores import read_items, write_items
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.models.progress import Amount
from compresslab.recipe.schema import Evaluate
from compresslab.records import ItemScores, TaskScore

ITEMS = [
    olmes_requests.Item("0", (("The quick brown", " fox"), ("The quick brown", " dog sleeps"), ("The quick brown", " é")), 1),
    olmes_requests.Item("1", (("Question: What is warm?\nAnswer:", " sun"), ("Question: What is warm?\nAnswer:", " water")), 0),
    olmes_requests.Item("2", (("Question: What is lazy?\nAnswer:", " dog"), ("Question: What is lazy?\nAnswer:", " fox")), 0),
]
STOCK = """
task: pets
dataset_path: json
dataset_kwargs: {{data_files: {{train: {data}, test: {data}}}, cache_dir: {cache}}}
training_split: {train}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: {target}
{choices}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


def config(*names: str, items: int | str = "all") -> Evaluate:
    return Evaluate.model_validate({"tasks": list(names), "items": items})


@pytest.fixture
def two_olmes_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(olmes_requests, "load", lambda _name: ITEMS)


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a task `pets` where lm-eval keeps its own."""

    def place(
        *, train: str = "train", kind: str = "multiple_choice", target: str = "answer", choices: str = "doc_to_choice: options"
    ) -> None:
        rows = [{"question": f"The quick {i} brown", "options": ["fox", "lazy dog"], "answer": i % 2, "word": "fox"} for i in range(4)]
        data = tmp_path / "pets.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)))
        folder = tmp_path / "tasks" / "animals"
        folder.mkdir(parents=True)
        settings = {"train": train, "kind": kind, "target": target, "choices": choices}
        (folder / "pets.yaml").write_text(STOCK.format(data=data, cache=tmp_path / "cache", **settings))
        monkeypatch.setattr(stock_room, "tasks_folder", lambda: tmp_path / "tasks")
        stock_room.find.cache_clear()

    return place


@pytest.mark.usefixtures("two_olmes_tasks")
def test_an_olmes_task_is_scored_by_characters_and_bytes_without_the_leading_space(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    [(score, items)] = evaluate_model(TreeLM(llama, tokenizer), ["arc_easy"], config("arc_easy"), weights="dequantized")
    lm = TreeLM(llama, tokenizer)
    for item, choice, correct, bits in zip(ITEMS, items.choice, items.correct, items.bits_per_byte or [], strict=True):
        logprobs = [answer[0] for answer in lm._loglikelihood_tokens(lm.encode(item.requests))]
        per_char = [logprob / (len(pair[1]) - 1) for logprob, pair in zip(logprobs, item.requests, strict=True)]
        assert choice == per_char.index(max(per_char))
        assert correct == float(choice == item.gold)
        assert bits == pytest.approx(-logprobs[item.gold] / math.log(2) / (len(item.requests[item.gold][1].encode()) - 1), abs=1e-5)
    assert (score.metric, score.chance, score.engine, score.weights, score.items) == ("acc_per_char", 0.25, "tree", "dequantized", 3)
    assert items.item == ["0", "1", "2"]
    assert items.gold == [1, 0, 0]


@pytest.mark.usefixtures("two_olmes_tasks")
def test_boolq_is_scored_without_normalisation_as_the_ladder_was(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    [(score, _)] = evaluate_model(TreeLM(llama, tokenizer), ["boolq"], config("boolq"))
    assert score.metric == "acc"


@pytest.mark.usefixtures("two_olmes_tasks")
def test_each_task_is_handed_over_as_soon_as_it_is_done(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[str] = []

    def done(score: TaskScore, items: ItemScores) -> None:
        events.append(f"done {score.task} {len(items.item)}")

    def progress(share: float, what: str, amount: Amount | None = None) -> None:
        assert amount is not None
        events.append(f"{share:.1f} {what}, {amount.done:.0f} of {amount.total} {amount.unit}")

    names = ["arc_easy", "csqa"]
    results = evaluate_model(TreeLM(llama, tokenizer), names, config(*names, items=2), done=done, progress=progress)
    assert events == [
        "0.0 arc_easy, 0 of 4 items",
        "0.5 arc_easy, 2 of 4 items",
        "done arc_easy 2",
        "0.5 csqa, 2 of 4 items",
        "1.0 csqa, 4 of 4 items",
        "done csqa 2",
    ]
    assert [score.task for score, _ in results] == names
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("two_olmes_tasks")
def test_the_same_evaluation_twice_gives_the_same_records(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    once, again = (evaluate_model(TreeLM(llama, tokenizer), ["arc_easy"], config("arc_easy")) for _ in range(2))
    assert once == again


@pytest.mark.usefixtures("two_olmes_tasks")
def test_a_model_with_broken_weights_is_named(build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    model = build()
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = math.nan
    with pytest.raises(RunFailed, match="arc_easy: the log-likelihoods of 3 of 3 items are not finite"):
        evaluate_model(TreeLM(model, tokenizer), ["arc_easy"], config("arc_easy"))


@pytest.mark.usefixtures("two_olmes_tasks")
def test_all_that_is_known_of_an_item_is_readable_by_pandas_in_one_line(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    [(score, items)] = evaluate_model(TreeLM(llama, tokenizer), ["arc_easy"], config("arc_easy"))
    write_items(tmp_path / "items.parquet", items)
    table = pd.read_parquet(tmp_path / "items.parquet")
    first = table.iloc[0]
    assert first["prompt"] == "The quick brown"
    assert list(first["options"]) == [" fox", " dog sleeps", " é"]
    assert list(first["bytes"]) == [3, 10, 2]
    assert list(first["tokens"]) == [len(tokenizer(option)["input_ids"]) for option in first["options"]]
    assert first["logprobs"][first["gold"]] == pytest.approx(first["logprob"])
    assert list(table["metric.acc_per_char"]) == list(table["correct"])
    assert list(table["metric.bits_per_byte"]) == pytest.approx(list(table["bits_per_byte"]))
    assert table["prompt_hash"].nunique() == 3
    assert read_items(tmp_path / "items.parquet") == items.model_copy(update={"details": None})
    assert score.metric == "acc_per_char"


@pytest.mark.usefixtures("two_olmes_tasks")
def test_lm_evals_own_way_gives_the_same_scores_where_the_recipe_asks_for_it(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    [(tree, items)] = evaluate_model(TreeLM(llama, tokenizer), ["arc_easy"], config("arc_easy"))
    lm = TreeLM(llama, tokenizer, backend="hf")
    [(plain, others)] = evaluate_model(lm, ["arc_easy"], config("arc_easy"))
    assert (tree.engine, plain.engine, lm.why) == ("tree", "plain", "the recipe asks for lm-eval's hf")
    assert others.bits_per_byte == pytest.approx(items.bits_per_byte, abs=1e-5)
    assert others.choice == items.choice


@pytest.mark.usefixtures("two_olmes_tasks")
@pytest.mark.parametrize("broken", [{"1"}, {"0", "1", "2"}])
def test_items_that_a_metric_fails_on_are_named_and_counted(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, broken: set[str]
) -> None:
    process = tasks.OlmesRequests.process_results

    def failing(task: tasks.OlmesRequests, doc: olmes_requests.Item, results: list[tuple[float, bool]]) -> dict[str, float]:
        if doc.id in broken:
            raise ZeroDivisionError("no number in the answer")
        return process(task, doc, results)

    monkeypatch.setattr(tasks.OlmesRequests, "process_results", failing)
    which = ", ".join(f"arc_easy/{name}" for name in sorted(broken))
    with pytest.raises(RunFailed, match=rf"fails on {len(broken)} of 3 items \({which}\): ZeroDivisionError: no number in the answer"):
        evaluate_model(TreeLM(llama, tokenizer), ["arc_easy"], config("arc_easy"))


@pytest.mark.usefixtures("two_olmes_tasks")
def test_prompts_that_do_not_fit_are_refused_unless_the_recipe_lets_them_be_cut(
    build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    short = build(max_position_embeddings=8)
    with pytest.raises(RunFailed, match=r"7 requests do not fit the model's context of 8 tokens.*evaluate\.truncate: true"):
        evaluate_model(TreeLM(short, tokenizer, truncate=False), ["arc_easy"], config("arc_easy"))
    [(score, _)] = evaluate_model(TreeLM(short, tokenizer, truncate=True), ["arc_easy"], config("arc_easy"))
    assert score.truncated == 3


def test_a_stock_task_has_accuracy_and_bits_of_the_right_option(
    stock: Callable[..., None], llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    stock()
    [(score, items)] = evaluate_model(TreeLM(llama, tokenizer), ["pets"], config("pets", items=3))
    lm = TreeLM(llama, tokenizer)
    right = [(f"The quick {i} brown", [" fox", " lazy dog"][i % 2]) for i in range(3)]
    bits = [
        -logprob / math.log(2) / (len(pair[1]) - 1)
        for pair, (logprob, _) in zip(right, lm._loglikelihood_tokens(lm.encode(right)), strict=True)
    ]
    assert items.bits_per_byte == pytest.approx(bits, abs=1e-5)
    assert items.gold == [0, 1, 0]
    assert items.correct == [float(choice == gold) for choice, gold in zip(items.choice, items.gold, strict=True)]
    assert (score.metric, score.chance, score.items) == ("acc", 0.5, 3)


def test_a_stock_task_without_options_is_scored_by_its_own_metric(
    stock: Callable[..., None], llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    stock(kind="loglikelihood", target='" {{word}}"', choices="")
    [(score, items)] = evaluate_model(TreeLM(llama, tokenizer), ["pets"], config("pets"))
    assert (score.metric, score.chance, score.items, items.choice) == ("acc", None, 4, [-1] * 4)
    assert score.bits_per_byte is not None


def test_a_training_split_that_the_data_lack_does_no_harm(
    stock: Callable[..., None], llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    stock(train="absent")
    [(score, _)] = evaluate_model(TreeLM(llama, tokenizer), ["pets"], config("pets"))
    assert score.items == 4


def test_an_unknown_task_gets_a_suggestion_and_the_tasks_that_need_no_hub(stock: Callable[..., None]) -> None:
    stock()
    with pytest.raises(BadInput, match=r"no task is called pet; did you mean 'pets'\? Tasks that need no hub: arc_easy, .* boolq\."):
        tasks.load("pet")


def test_a_typo_in_an_olmes_name_suggests_it(stock: Callable[..., None]) -> None:
    stock()
    with pytest.raises(BadInput, match=r"did you mean 'arc_easy'"):
        tasks.load("arc-easy")


def test_data_out_of_reach_are_named_with_what_can_be_done(stock: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    stock()

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'json' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(BadInput, match=r"pets needs the data set json from the Hugging Face hub, .* Tasks that need no hub"):
        tasks.load("pets")


def test_a_task_that_measures_perplexity_alone_is_refused(stock: Callable[..., None]) -> None:
    stock(kind="loglikelihood_rolling", target="word", choices="")
    with pytest.raises(BadInput, match="pets measures perplexity alone"):
        tasks.load("pets")
