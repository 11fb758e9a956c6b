"""A reference of one's own: the table that is read, the ladder that is found again, and the file that a recipe names."""

import functools
import json

import numpy as np
import pandas as pd
import pytest

from compresslab.density import Budget, Measured, Reference, assess
from compresslab.density.references.laws import loss_law, score_link
from compresslab.density.references.user import fit_table, read_table
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Shape, Size

pytestmark = pytest.mark.slow

SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
LAWS = {
    "easy": np.array([0.4, np.log(0.2), np.log(0.35), np.log(0.1), np.log(0.3)]),
    "hard": np.array([0.5, np.log(0.3), np.log(0.35), np.log(0.15), np.log(0.3)]),
}
LINK = np.array([1.0, 6.0, 0.8, 0.25])
SIZES = (1e8, 2e8, 4e8, 8e8, 1.6e9, 3.2e9)
TOKEN_BUDGETS = (1e10, 3e10, 1e11, 3e11)


def true_loss(task, n, d):
    return float(loss_law(LAWS[task], np.array(n / 1e9), np.array(d / 1e11)))


def ladder(sizes=SIZES, budgets=TOKEN_BUDGETS, tasks=("easy", "hard"), noise=0.002):
    rng, rows = np.random.default_rng(0), []
    for task in tasks:
        for n in sizes:
            for d in budgets:
                loss = true_loss(task, n, d) * float(np.exp(rng.normal(0, noise)))
                score = float(score_link(LINK, np.array(loss)))
                rows.append({"run": f"{n:g} at {d:g}", "params": n, "tokens": d, "task": task, "bpb": loss, "score": score, "chance": 0.25})
    return pd.DataFrame(rows)


@pytest.fixture
def read(tmp_path):
    def run(table):
        path = tmp_path / "table.csv"
        path.write_text(table if isinstance(table, str) else table.to_csv(index=False))
        return read_table(path)

    return run


def with_cell(row, column, value):
    table = ladder(sizes=SIZES[:4], budgets=TOKEN_BUDGETS[:1], tasks=("easy",)).astype({column: object})
    table.loc[row, column] = value
    return table


@functools.cache
def built():
    return fit_table(sized(ladder()), "mine", "made up", resamples=5)


def sized(table):
    return table.assign(size=table["params"])


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(built()))
    return str(file)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (0, "params", "many", r"line 2: params is 'many'; it must be a number"),
        (2, "params", None, r"line 4: params is .*nan.*; it must be a number"),
        (1, "tokens", "1T", r"line 3: tokens is '1T'"),
        (3, "bpb", "low", r"line 5: bpb is 'low'"),
        (3, "score", "61%", r"line 5: score is '61%'"),
        (0, "chance", "a quarter", r"line 2: chance is 'a quarter'"),
    ],
)
def test_what_is_no_number_is_named_by_its_line(read, row, column, value, message):
    with pytest.raises(BadInput, match=message):
        read(with_cell(row, column, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no CSV table"),
        ("run;params;tokens;task;bpb\na;1;2;t;3\n", "lacks run, params, tokens, task; its columns are run;params"),
        ("run,params,tokens,task\na,1,2,t\n", "lacks bpb or score; its columns are run, params, tokens, task"),
        ("run,tokens,task,bpb\na,1,t,1\n", "lacks params"),
        ("run,params,tokens,task,bpb\na,1,2,t,1\nb,1,2,t,1,5,6\n", "is no CSV table"),
    ],
)
def test_what_is_no_table_of_models_is_refused(read, text, message):
    with pytest.raises(BadInput, match=message):
        read(text)


def test_a_table_that_is_not_there_or_a_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="there is no table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(BadInput, match=r"cannot be read \(a folder"):
        read_table(tmp_path)


def test_columns_that_are_left_out_are_filled(read):
    table = read(ladder().drop(columns=["score", "chance"]))
    assert table["score"].isna().all()
    assert (table["size"] == table["params"]).all()
    grouped = read(ladder().assign(size="one"))
    assert set(grouped["size"]) == {"one"}


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (1, "bpb", -0.5, r"line 3: bpb is -0.5; it must be positive"),
        (1, "bpb", 0.0, "line 3: bpb is 0; it must be positive"),
        (1, "bpb", "inf", "line 3: bpb is inf; it must be positive"),
        (1, "score", 1.2, "line 3: score is 1.2; it must be between 0 and 1"),
        (1, "score", -0.1, "line 3: score is -0.1"),
        (1, "params", -5, "line 3: params is -5; it must be at least 10,000, in parameters and not in billions"),
        (1, "params", "inf", "line 3: params is inf"),
        (1, "params", 1.6, "in parameters and not in billions"),
        (1, "tokens", 0, "line 3: tokens is 0; it must be a number of tokens"),
        (1, "chance", 7, "line 3: chance is 7; it must be a share below 1"),
    ],
)
def test_values_that_are_no_losses_and_no_scores_are_refused_by_line(read, row, column, value, message):
    with pytest.raises(BadInput, match=message):
        read(with_cell(row, column, value))


def test_losses_that_rise_with_size_are_no_ruler(read):
    table = ladder()
    table["bpb"] = 3 - table["bpb"]
    with pytest.raises(BadInput, match="do not fall with size or tokens"):
        fit_table(read(table), "mine", "x", resamples=1)


def test_a_run_that_stands_twice_is_refused(read):
    table = ladder()
    with pytest.raises(BadInput, match=r"1e\+08 at 1e\+10 stands twice on easy with the same tokens"):
        fit_table(read(pd.concat([table, table.iloc[:1]])), "mine", "x", resamples=1)


def test_too_few_sizes_are_refused(read):
    with pytest.raises(BadInput, match="easy has losses of 3 model sizes; a reference needs at least 4"):
        fit_table(read(ladder(sizes=SIZES[:3])), "mine", "x", resamples=1)


def test_an_unknown_unit_is_refused(read):
    with pytest.raises(BadInput, match="bits per byte or bits per word, not 'nats'"):
        fit_table(read(ladder()), "mine", "x", unit="nats", resamples=1)


def test_a_synthetic_ladder_is_found_again():
    reference = Reference.parse(built())
    assert reference.name == "mine"
    assert reference.form["chosen"] == "E > 0"
    assert reference.parameters_range == pytest.approx((1e8, 3.2e9))
    assert reference.tokens_range == pytest.approx((1e10, 3e11))
    assert reference.runs == len(SIZES) * len(TOKEN_BUDGETS)
    for task in LAWS:
        assert reference.tasks[task].r2_loss > 0.99
        for n, d in ((1.5e8, 2e10), (1e9, 1e11), (3e9, 3e11), (6e9, 1e12)):
            loss, score = reference.predict(task, n, d)
            assert loss == pytest.approx(true_loss(task, n, d), rel=0.02)
            assert score == pytest.approx(float(score_link(LINK, np.array(true_loss(task, n, d)))), abs=0.02)
            read_off = reference.effective_params(task=task, bpb=true_loss(task, n, d), budget=Budget(tokens=d))
            assert read_off.value == pytest.approx(n, rel=0.25)


def test_the_order_of_the_rows_changes_nothing():
    shuffled = sized(ladder()).sample(frac=1, random_state=1)
    assert fit_table(shuffled, "mine", "made up", resamples=5)["tasks"] == built()["tasks"]


def test_losses_alone_make_a_reference_without_scores(read):
    entry = fit_table(read(ladder(tasks=("easy",)).drop(columns=["score", "chance"])), "mine", "x", resamples=1)
    assert entry["tasks"]["easy"]["score"] is None
    with pytest.raises(BadInput, match="reads easy by loss only"):
        Reference.parse(entry).effective_params(task="easy", score=0.5)


def test_one_token_budget_gives_a_law_without_a_data_term(read):
    table = read(ladder(budgets=TOKEN_BUDGETS[-1:], tasks=("easy",)))
    reference = Reference.parse(fit_table(table, "mine", "x", resamples=1))
    near, far = (reference.predict("easy", 1e9, tokens)[0] for tokens in (1e11, 1e13))
    assert near == pytest.approx(far)


def variant(name, n_hat, n, parent=""):
    rng = np.random.default_rng(len(name))
    items = {
        task: ItemScores(
            task=task,
            item=[str(i) for i in range(200)],
            bits_per_byte=(true_loss(task, n_hat, 1e11) * rng.lognormal(-0.0002, 0.02, 200)).tolist(),
            correct=[float(i % 2) for i in range(200)],
            choice=[0] * 200,
            gold=[0] * 200,
        )
        for task in LAWS
    }
    size = Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=2 * n, effective_bits=16.0)
    return Measured(name=name, parent=parent, root="base", size=size, shape=SHAPE, items=items)


def test_its_file_is_a_reference_by_path_and_decides_a_study(path):
    assert Reference.load(path).name == "mine"
    config = DensityConfig(reference=path, tokens=1e11, resamples=300)
    result = assess([variant("base", 1e9, 1_000_000_000), variant("child", 3e8, 600_000_000, "base")], config, [], Reference.names())
    density, comparison = result["child"][0], result["child"][1][0]
    assert density.reference == "mine"
    assert density.params.value == pytest.approx(0.5, rel=0.1)
    assert comparison.verdict == "lowered"
    assert comparison.ratio.value == pytest.approx(0.5, rel=0.1)
    assert {row.setting for row in comparison.robustness if row.choice == "reference"} == set(Reference.names())


def test_a_file_that_is_not_there_is_said_with_what_writes_one(tmp_path):
    with pytest.raises(BadInput, match=r"no reference file .*none\.json; `compresslab reference fit`"):
        Reference.load(str(tmp_path / "none.json"))
    with pytest.raises(BadInput, match="no reference file"):
        Reference.load(str(tmp_path / "none.json"))


def spoiled(**change):
    raw = json.loads(json.dumps(built()))
    return json.dumps(raw | change)


def without(key):
    return json.dumps({name: value for name, value in built().items() if name != key})


BROKEN = ["", "{", "[]", "3", "null", '{"name": "x"}', without("kind"), without("tasks"), without("unit"), spoiled(tasks={"easy": 3})]


@pytest.mark.parametrize("text", [*BROKEN, spoiled(parameters_range=3), spoiled(tasks={"easy": {"loss": [1]}})])
def test_a_broken_file_is_refused(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"broken\.json is no reference"):
        Reference.load(str(file))


@pytest.mark.parametrize(
    "change", [{"tasks": []}, {"tasks": {}}, {"parameters_range": ["a", "b"]}, {"parameters_range": [1e9]}, {"runs": "x"}]
)
def test_a_file_with_values_of_another_kind_is_refused(tmp_path, change):
    file = tmp_path / "broken.json"
    file.write_text(spoiled(**change))
    with pytest.raises(BadInput, match=r"broken\.json is no reference"):
        Reference.load(str(file))


@pytest.mark.parametrize(
    "gap", ["no losses", "no rows", "no run", "no task", "losses of one size", "one task without losses", "equal losses"]
)
def test_a_table_with_gaps_is_a_named_error(read, gap):
    table = ladder(sizes=SIZES[:4], budgets=TOKEN_BUDGETS[:3])
    if gap == "no losses":
        table = table.drop(columns="bpb")
    elif gap == "no rows":
        table = table.iloc[:0]
    elif gap in ("no run", "no task"):
        table.loc[3, gap.removeprefix("no ")] = None
    elif gap == "losses of one size":
        table.loc[(table["task"] == "easy") & (table["params"] > 1e8), "bpb"] = np.nan
    elif gap == "one task without losses":
        table.loc[table["task"] == "hard", "bpb"] = np.nan
    else:
        table["bpb"] = 1.0
    with pytest.raises(BadInput):
        fit_table(read(table), "mine", "x", resamples=1)
