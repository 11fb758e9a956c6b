"""Malformed recipes: what is wrong with each, in which line, and a fragment that names the cause.

Most cases are a sound head of three lines and something wrong after it, so the first line of their tail is line 4.
"""

from __future__ import annotations

from typing import NamedTuple

HEAD = "study: s\nbase: {model: some/model}\nevaluate: {tasks: [arc_easy]}\n"


class Case(NamedTuple):
    text: str
    line: int
    fragment: str


def tail(text: str, line: int, fragment: str) -> Case:
    return Case(HEAD + text, line, fragment)


def step(text: str, fragment: str) -> Case:
    """A single step in flow style, in line 5."""
    return tail(f"variants:\n  v: [{text}]\n", 5, fragment)


def evaluate(text: str, fragment: str) -> Case:
    return Case(f"study: s\nbase: {{model: m}}\nevaluate: {text}\n", 3, fragment)


def sweep(text: str, line: int, fragment: str) -> Case:
    return tail(f"sweeps:\n{text}", line, fragment)


NEST = "[" * 200 + "]" * 200
LAUGHS = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}' if i else 'lol'] * 10)}]\n" for i in range(10))

CASES: dict[str, Case] = {
    # The file as YAML
    "empty": Case("", 1, "the recipe is empty"),
    "only-a-comment": Case("# nothing\n", 1, "the recipe is empty"),
    "null": Case("~\n", 1, "the recipe is empty"),
    "a-list": Case("- study: s\n", 1, "a recipe is a mapping"),
    "a-word": Case("hello\n", 1, "a recipe is a mapping"),
    "unclosed-bracket": tail("variants: {v: [\n", 5, "not valid YAML"),
    "unclosed-quote": tail("question: 'why\n", 5, "quoted scalar that began in line 4"),
    "missing-colon": tail("density\n  reference: olmo-ladder\n", 5, "not valid YAML"),
    "two-colons": tail("question: is: it\n", 4, "mapping values are not allowed here"),
    "wrong-indentation": tail("density:\n    tokens: 1e12\n  measure: true\n", 6, "not valid YAML"),
    "tab": tail("density:\n\tmeasure: true\n", 5, "indented with a tab"),
    "control-character": tail("question: a\x00b\n", 4, "a character that YAML does not allow"),
    "escaped-control-character": tail('question: "a\\0b"\n', 4, "unprintable character"),
    "reversing-character": tail("question: a\u202eb\n", 4, "'a\\u202eb' holds an unprintable character"),
    "escape-sequence": tail('question: "a\\e[2Jb"\n', 4, "unprintable character"),
    "c1-control-character": tail('question: "a\\x9bb"\n', 4, "unprintable character"),
    "surrogate": tail('question: "\\ud800"\n', 4, "unprintable character"),
    "impossible-escape": tail('question: "\\UFFFFFFFF"\n', 4, "not valid YAML"),
    "two-documents": tail("---\nstudy: t\n", 4, "a second document"),
    "duplicate-top-key": tail("study: t\n", 4, "the key 'study' stands twice, first in line 1"),
    "duplicate-variant": tail(
        "variants:\n  v: [prune: {method: depth, keep: 3}]\n  v: [quantize: {method: rtn}]\n", 6, "'v' stands twice, first in line 5"
    ),
    "duplicate-key-in-step": step("prune: {method: depth, keep: 3, keep: 4}", "the key 'keep' stands twice"),
    "merge": tail("density: {<<: {measure: true}}\n", 4, "merging with '<<'"),
    "undefined-alias": tail("density: *common\n", 4, "the alias '*common' refers to no value"),
    "alias-in-itself": tail("variants: &v\n  w: *v\n", 5, "the alias '*v' refers to no value"),
    "tag": tail("question: !!python/object:os.system x\n", 4, "is not part of a recipe"),
    "nested-too-deep": tail(f"question: {NEST}\n", 4, "levels deep"),
    "billion-laughs": Case(LAUGHS, 5, "more than 20000 values"),
    "list-as-key": tail("? [a, b]\n: c\n", 4, "a list or a mapping stands where a key belongs"),
    "unquoted-sweep-name": sweep("  {keep}-layers: {}\n", 5, "put it in quotes"),
    # Keys
    "number-as-name": tail("variants:\n  8: [quantize: {method: rtn}]\n", 5, "the key 8 is a number to YAML; put it in quotes"),
    "yes-as-name": tail("variants:\n  on: [quantize: {method: rtn}]\n", 5, "the key on is a yes/no value to YAML"),
    "null-as-name": tail("variants:\n  ~: [quantize: {method: rtn}]\n", 5, "the key '~' means nothing to YAML; give it a name"),
    "unknown-top-key": tail("varients: {}\n", 4, "unknown key 'varients'; did you mean 'variants'?"),
    "unknown-top-key-sweep": tail("sweep: {}\n", 4, "did you mean 'sweeps'?"),
    "unknown-key-far-off": tail("xyzzy: 3\n", 4, "unknown key 'xyzzy'; remove it; known here: study"),
    "unknown-base-key": Case("study: s\nbase:\n  model: m\n  dtyp: float32\nevaluate: {tasks: [a]}\n", 4, "did you mean 'dtype'?"),
    "unknown-text-key": tail("text:\n  calibration: {sample: 3}\n", 5, "unknown key 'sample'; did you mean 'samples'?"),
    "unknown-density-key": tail("density: {hardwares: [this-machine]}\n", 4, "did you mean 'hardware'?"),
    "unknown-workload-key": tail(
        "density:\n  workload: {batches: 1}\n", 5, "density.workload.batches: unknown key 'batches'; did you mean 'batch'?"
    ),
    "unknown-variant-key": tail(
        "variants:\n  v:\n    form: base\n    steps: [quantize: {method: rtn}]\n", 6, "unknown key 'form'; did you mean 'from'?"
    ),
    "unknown-step-kind": step("prun: {method: depth, keep: 3}", "variants.v[0].prun: unknown key 'prun'; did you mean 'prune'?"),
    "unknown-step-key": step("quantize: {method: rtn, group: 32}", "unknown key 'group'; did you mean 'group_size'?"),
    "key-of-another-method": step("quantize: {method: bnb-nf4, bits: 4}", "known here: method, double_quantization"),
    "damping-of-another-method": step("prune: {method: wanda, sparsity: 0.5, damping: 0.1}", "damping is a setting of sparsegpt"),
    "group-of-another-method": step("quantize: {method: torchao-int8, group_size: 64}", "group_size is a setting of torchao-int4"),
    "beta-of-another-method": step("distill: {tokens: 9, beta: 0.9}", "beta is a setting of jsd, and forward-kl does not read it"),
    "skew-of-another-method": step("distill: {method: jsd, tokens: 9, skew: 0.2}", "skew is a setting of skewed-kl"),
    "unknown-key-named-like-its-method": step("prune: {method: depth, keep: 3, depth: 3}", "prune.depth: unknown key 'depth'"),
    "unknown-optimizer-key": step(
        "distill: {tokens: 9, optimizer: {lr: 1e-4}}", "distill.optimizer.lr: unknown key 'lr'; did you mean 'learning_rate'?"
    ),
    "missing-study": Case("base: {model: m}\nevaluate: {tasks: [a]}\n", 1, "the key 'study' is missing"),
    "missing-base": Case("study: s\nevaluate: {tasks: [a]}\n", 1, "the key 'base' is missing"),
    "missing-model": Case("study: s\nbase:\n  dtype: float32\nevaluate: {tasks: [a]}\n", 3, "base: the key 'model' is missing"),
    "missing-evaluate": Case("study: s\nbase: {model: m}\n", 1, "the key 'evaluate' is missing"),
    "missing-steps": tail("variants:\n  v:\n    from: base\n", 6, "the key 'steps' is missing"),
    "neither-keep": step("prune: {method: depth}", "neither is given; set exactly one of keep (layers) and parameters (the model's)"),
    "keep-and-parameters": step("prune: {method: depth, keep: 3, parameters: 0.5}", "both are given; set exactly one of keep"),
    "width-of-nothing": step("prune: {method: width}", "neither is given; set either keep, groups and hidden (at least one of them)"),
    "width-twice": step("prune: {method: width, groups: 2, parameters: 0.5}", "both are given; set either keep, groups and hidden"),
    "axis-twice": step(
        "prune: {method: width, parameters: 0.5, axes: [hidden, hidden]}", "hidden, hidden is one axis twice; name each once"
    ),
    "logits-and-hidden": step("distill: {tokens: 9, top_k: 8, hidden: 1}", "hidden needs the teacher itself, and top_k replaces it"),
    "logits-and-on-policy": step("distill: {tokens: 9, top_k: 8, on_policy: 0.5}", "on_policy needs the teacher itself"),
    "logits-and-temperature": step(
        "distill: {tokens: 9, top_k: 8, temperature: 2}",
        "temperature 2 would temper as one token; take temperature: 1, or drop top_k",
    ),
    "until-unknown": step("retrain: {method: full, tokens: 9, until: bse}", "no variant is named 'bse'; did you mean 'base'?"),
    "until-itself": step("retrain: {method: full, tokens: 9, until: v}", "'v' trains until itself"),
    "missing-tokens": step("distill: {teacher: base}", "the key 'tokens' is missing; add it with a whole number of at least 1"),
    "missing-method": step("prune: {keep: 3}", "the key 'method' is missing; add it with depth, width, magnitude, wanda or sparsegpt"),
    "misspelt-method-key": step("prune: {metod: depth, keep: 3}", "unknown key 'metod'; did you mean 'method'?"),
    "nothing-behind-key": tail("variants:\n", 4, "variants: nothing stands here"),
    "nothing-behind-step": tail("variants:\n  v:\n    - prune:\n", 6, "prune: nothing stands here"),
    "step-outdented": tail("variants:\n  v:\n    - prune:\n      method: depth\n", 7, "unknown key 'method'"),
    "nothing-in-list": evaluate("{tasks: [arc_easy, ~]}", "evaluate.tasks[1]: nothing stands here"),
    # Values
    "study-with-blank": Case(
        "study: my study\nbase: {model: m}\nevaluate: {tasks: [a]}\n", 1, "'my study' does not fit here; give a name of at most 100"
    ),
    "study-as-path": Case("study: ../s\nbase: {model: m}\nevaluate: {tasks: [a]}\n", 1, "'../s' does not fit here; give a name"),
    "study-as-number": Case("study: 7\nbase: {model: m}\nevaluate: {tasks: [a]}\n", 1, "study: 7 does not fit here; give a name"),
    "empty-model": Case(
        "study: s\nbase: {model: ''}\nevaluate: {tasks: [a]}\n", 2, "base.model: '' does not fit here; give a text that is not empty"
    ),
    "base-as-text": Case(
        "study: s\nbase: some/model\nevaluate: {tasks: [a]}\n",
        2,
        "base: 'some/model' does not fit here; give a mapping with keys among model",
    ),
    "moved-dtype": Case("study: s\nbase: {model: m}\nevaluate: {tasks: [a], dtype: float32}\n", 3, "write `compute:` at the top"),
    "unknown-compute": Case("study: s\nbase: {model: m}\ncompute: bf16\nevaluate: {tasks: [a]}\n", 3, "one of auto, bfloat16"),
    "unknown-dtype": Case("study: s\nbase: {model: m, dtype: bfloat}\nevaluate: {tasks: [a]}\n", 2, "did you mean 'bfloat16'?"),
    "remote-code-as-text": Case(
        "study: s\nbase: {model: m, trust_remote_code: sure}\nevaluate: {tasks: [a]}\n", 2, "'sure' does not fit here; give true or false"
    ),
    "remote-code-as-number": Case(
        "study: s\nbase: {model: m, trust_remote_code: 1}\nevaluate: {tasks: [a]}\n", 2, "1 does not fit here; give true or false"
    ),
    "quoted-number": step(
        "prune: {method: depth, keep: '24'}",
        "'24' does not fit here; give a whole number of at least 1 or a number above 0 and below 1, without quotes",
    ),
    "leading-zero": step("distill: {tokens: 024}", "without leading zeros"),
    "yes-for-number": step("prune: {method: depth, keep: yes}", "yes (a yes/no value) does not fit here; give a whole number"),
    "text-for-number": step("prune: {method: depth, keep: many}", "'many' does not fit here; give a whole number"),
    "keep-zero": step("prune: {method: depth, keep: 0}", "0 does not fit here; give a whole number of at least 1"),
    "keep-negative": step("prune: {method: depth, keep: -3}", "-3 does not fit here; give a whole number of at least 1"),
    "keep-between": step(
        "prune: {method: width, keep: 1.5}", "1.5 does not fit here; give a whole number of at least 1 or a number above 0 and below 1"
    ),
    "keep-all": step(
        "prune: {method: width, keep: 1.0}", "1.0 does not fit here; give a whole number of at least 1 or a number above 0 and below 1"
    ),
    "keep-as-list": step("prune: {method: depth, keep: [24]}", "a list does not fit here"),
    "temperature-zero": step("distill: {tokens: 9, temperature: 0}", "temperature: 0 does not fit here; give a number above 0"),
    "bits-five": step("quantize: {method: rtn, bits: 5}", "bits: 5 does not fit here; give one of 4 or 8"),
    "bits-quoted": step("quantize: {method: rtn, bits: '4'}", "give one of 4 or 8, without quotes"),
    "tokens-with-exponent": step("distill: {tokens: 6e4}", "6e4 does not fit here; give a whole number of at least 1, such as 60000"),
    "tokens-with-fraction": step("distill: {tokens: 60.5}", "60.5 does not fit here; give a whole number"),
    "dropout-one": step("retrain: {method: lora, tokens: 9, dropout: 1.0}", "give a number of at least 0 and below 1"),
    "length-short": tail(
        "text:\n  training: {length: 4}\n", 5, "text.training.length: 4 does not fit here; give a whole number of at least 8"
    ),
    "resamples-few": tail(
        "density: {resamples: 10}\n", 4, "10 does not fit here; give a whole number of at least 200 and of at most 100000"
    ),
    "seed-negative": step(
        "retrain: {method: lora, tokens: 9, seed: -1}", "retrain.seed: -1 does not fit here; give a whole number of at least 0"
    ),
    "retrain-optimizer": step(
        "retrain: {method: full, tokens: 9, optimizer: {decay: '1'}}", "retrain.optimizer.decay: '1' does not fit here"
    ),
    "phases-too-long": step(
        "distill: {tokens: 9, optimizer: {warmup: 0.8, decay: 0.5}}", "warmup 0.8 and decay 0.5 add up to more than the whole run"
    ),
    "infinite": tail("density: {tokens: .inf}\n", 4, "density.tokens: '.inf' is not a finite number"),
    "not-a-number": tail("density: {tokens: .NaN}\n", 4, "'.NaN' is not a finite number"),
    "overflow": tail("density: {tokens: 1e999}\n", 4, "'1e999' is not a finite number"),
    "huge-integer": tail(f"density: {{seed: {'9' * 5000}}}\n", 4, "is too large"),
    "unknown-method": step(
        "prune: {method: dept, keep: 3}", "unknown method 'dept'; did you mean 'depth'? give depth, width, magnitude, wanda or sparsegpt"
    ),
    "unknown-method-short": step("quantize: {method: nf4}", "unknown method 'nf4'; did you mean 'bnb-nf4'?"),
    "method-as-number": step("quantize: {method: 4}", "unknown method 4; give rtn"),
    "sparsity-and-pattern": step("prune: {method: wanda, sparsity: 0.5, pattern: '2:4'}", "both are given; set exactly one of sparsity"),
    "neither-sparsity": step("prune: {method: magnitude}", "neither is given; set exactly one of sparsity"),
    "pattern-drops-nothing": step("prune: {method: wanda, pattern: '4:4'}", "pattern 4:4 drops nothing; the first number"),
    "distill-method": step(
        "distill: {method: kl, tokens: 9}",
        "'kl' does not fit here; give one of forward-kl, reverse-kl, jsd or skewed-kl; did you mean 'forward-kl'?",
    ),
    "no-tasks": evaluate("{tasks: []}", "evaluate.tasks: a list without entries does not fit here; give a list with at least one entry"),
    "tasks-as-text": evaluate("{tasks: arc_easy}", "give a list with at least one entry, such as [arc_easy]"),
    "task-twice": evaluate("{tasks: [csqa, arc_easy, csqa]}", "evaluate.tasks: named twice: csqa"),
    "task-as-mapping": evaluate("{tasks: [{name: csqa}]}", "evaluate.tasks[0]: a mapping does not fit here; give a text"),
    "items-zero": evaluate("{tasks: [csqa], items: 0}", "items: 0 does not fit here; give a whole number of at least 1 or 'all'"),
    "items-word": evaluate("{tasks: [csqa], items: every}", "items: 'every' does not fit here; give a whole number of at least 1 or 'all'"),
    "hardware-as-text": tail("density: {hardware: rtx-4090}\n", 4, "such as [rtx-4090]"),
    # Variants and steps
    "variants-as-list": tail("variants:\n  - quantize: {method: rtn}\n", 5, "variants: a list does not fit here; give a mapping"),
    "variant-as-text": tail(
        "variants:\n  v: prune\n", 5, "'prune' does not fit here; give a list of steps, or a mapping with 'from' and 'steps'"
    ),
    "variant-without-steps": tail("variants:\n  v: []\n", 5, "variants.v: a list without entries does not fit here"),
    "chain-without-steps": tail("variants:\n  v: {from: base, steps: []}\n", 5, "variants.v.steps: a list without entries"),
    "steps-as-mapping": tail(
        "variants:\n  v:\n    steps:\n      prune: {method: depth, keep: 3}\n",
        7,
        "variants.v.steps: a mapping does not fit here; give a list",
    ),
    "step-as-variant": tail(
        "variants:\n  v: {prune: {method: depth, keep: 3}}\n", 5, "variants.v.prune: a step stands where a variant belongs"
    ),
    "step-as-text": step("prune", "'prune' does not fit here; give a mapping with one of prune, distill"),
    "step-kind-as-text": step(
        "prune: depth",
        "variants.v[0].prune: 'depth' does not fit here; give a mapping with the key 'method' (depth, width, magnitude",
    ),
    "step-empty": step("{}", "a step has exactly one of prune, distill"),
    "step-of-two-kinds": step("{prune: {method: depth, keep: 3}, quantize: {method: rtn}}", "this one has prune and quantize"),
    "name-base": tail("variants:\n  base: [quantize: {method: rtn}]\n", 5, "'base' is the model that every variant starts from"),
    "name-with-slash": tail("variants:\n  a/b: [quantize: {method: rtn}]\n", 5, "'a/b' cannot be a name here; give a name of at most 100"),
    "name-hidden": tail("variants:\n  .v: [quantize: {method: rtn}]\n", 5, "'.v' cannot be a name here"),
    "name-long": tail(f"variants:\n  {'v' * 101}: [quantize: {{method: rtn}}]\n", 5, "cannot be a name here"),
    "name-odd": tail("variants:\n  größe 1: [quantize: {method: rtn}]\n", 5, "'größe 1' cannot be a name here"),
    "name-empty": tail("variants:\n  '': [quantize: {method: rtn}]\n", 5, "'' cannot be a name here"),
    "name-case": tail(
        "variants:\n  v: [quantize: {method: rtn}]\n  V: [quantize: {method: rtn}]\n",
        6,
        "'V' differs from 'v' only in upper and lower case",
    ),
    "name-placeholder": tail("variants:\n  v-{keep}: [quantize: {method: rtn}]\n", 5, "a name with {…} belongs under 'sweeps'"),
    "placeholder-in-variant": step('prune: {method: depth, keep: "{keep}"}', "a placeholder works only under 'sweeps'"),
    # The graph
    "from-unknown": tail(
        "variants:\n  depth-24: [quantize: {method: rtn}]\n  w: {from: dpth-24, steps: [quantize: {method: rtn}]}\n",
        6,
        "no variant is named 'dpth-24'; did you mean 'depth-24'?",
    ),
    "from-itself": tail("variants:\n  v: {from: v, steps: [quantize: {method: rtn}]}\n", 5, "'v' starts from itself"),
    "from-circle": tail(
        "variants:\n  a: {from: b, steps: [quantize: {method: rtn}]}\n  b: {from: a, steps: [quantize: {method: rtn}]}\n",
        5,
        "variants.a.from: a circle: 'a' starts from 'b', 'b' starts from 'a'",
    ),
    "from-as-list": tail(
        "variants:\n  v: {from: [base], steps: [quantize: {method: rtn}]}\n", 5, "variants.v.from: a list does not fit here; give a text"
    ),
    "teacher-unknown": step("distill: {teacher: bse, tokens: 9}", "no variant is named 'bse'; did you mean 'base'?"),
    "teacher-itself": step("distill: {teacher: v, tokens: 9}", "'v' learns from itself"),
    "teacher-circle": tail(
        "variants:\n  a: [distill: {teacher: b, tokens: 9}]\n  b: {from: a, steps: [quantize: {method: rtn}]}\n",
        5,
        "a circle: 'a' learns from 'b', 'b' starts from 'a'",
    ),
    # Sweeps
    "sweeps-as-list": sweep("  - grid: {}\n", 5, "sweeps: a sweep has a name; make this a mapping"),
    "sweep-as-list": sweep(
        "  d-{k}: [quantize: {method: rtn}]\n", 5, "sweeps.d-{k}: a list does not fit here; give a mapping with keys among grid"
    ),
    "sweep-without-grid": sweep('  d-{k}:\n    steps: [prune: {method: depth, keep: "{k}"}]\n', 6, "the key 'grid' is missing"),
    "sweep-empty-grid": sweep('  d-{k}: {grid: {}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "grid: a mapping without entries"),
    "sweep-without-values": sweep(
        '  d-{k}: {grid: {k: []}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "grid.k: a list without entries"
    ),
    "sweep-value-alone": sweep(
        '  d-{k}: {grid: {k: 24}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "grid.k: 24 does not fit here; give a list"
    ),
    "sweep-value-list": sweep(
        '  d-{k}: {grid: {k: [[1]]}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "a list or a mapping cannot be a grid value"
    ),
    "sweep-unknown-key": sweep(
        '  d-{k}: {gird: {k: [1]}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "unknown key 'gird'; did you mean 'grid'?"
    ),
    "sweep-odd-grid-key": sweep('  d: {grid: {"1 k": [1]}, steps: [prune: {method: depth, keep: 3}]}\n', 5, "'1 k' cannot be a grid key"),
    "sweep-name-without-key": sweep(
        '  d: {grid: {keep: [1, 2]}, steps: [prune: {method: depth, keep: "{keep}"}]}\n', 5, "the name lacks {keep}"
    ),
    "sweep-unknown-in-name": sweep(
        '  d-{kep}: {grid: {keep: [1]}, steps: [prune: {method: depth, keep: "{keep}"}]}\n',
        5,
        "{kep} is not in the grid; did you mean 'keep'?",
    ),
    "sweep-unknown-in-step": sweep(
        '  d-{keep}:\n    grid: {keep: [1]}\n    steps:\n      - prune: {method: depth, keep: "{kep}"}\n',
        8,
        "steps[0].prune.keep: the placeholder {kep} is not in the grid; did you mean 'keep'?",
    ),
    "sweep-key-unused": sweep(
        "  d-{keep}:\n    grid: {keep: [1, 2]}\n    steps: [prune: {method: depth, keep: 3}]\n",
        6,
        "{keep} stands nowhere in 'from' or 'steps'",
    ),
    "sweep-unquoted-placeholder": sweep(
        "  d-{keep}:\n    grid: {keep: [1]}\n    steps:\n      - prune: {method: depth, keep: {keep}}\n",
        8,
        "{keep} is a mapping without a value",
    ),
    "sweep-bad-value": sweep(
        '  d-{keep}:\n    grid: {keep: [24, 0]}\n    steps:\n      - prune: {method: depth, keep: "{keep}"}\n',
        8,
        "sweeps.d-{keep}.steps[0].prune.keep: 0 does not fit here; give a whole number of at least 1",
    ),
    "sweep-value-twice": sweep(
        '  d-{k}: {grid: {k: [3, 3]}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "two points of the grid give the name 'd-3'"
    ),
    "sweep-collides": tail(
        'variants:\n  d-3: [quantize: {method: rtn}]\nsweeps:\n  d-{k}: {grid: {k: [3]}, steps: [prune: {method: depth, keep: "{k}"}]}\n',
        7,
        "the name 'd-3' is a variant already",
    ),
    "sweep-odd-name": sweep("  d-{k}: {grid: {k: [a/b]}, steps: [adopt: {model: '{k}'}]}\n", 5, "'d-a/b' cannot be a name here"),
    "sweep-from-unknown": sweep(
        '  d-{k}: {from: "x-{k}", grid: {k: [3]}, steps: [prune: {method: depth, keep: "{k}"}]}\n', 5, "no variant is named 'x-3'"
    ),
    "sweep-too-large": sweep(
        f'  d-{{a}}-{{b}}: {{grid: {{a: {list(range(1, 40))}, b: {list(range(1, 40))}}}, steps: [prune: {{method: depth, keep: "{{a}}"}}, '
        'prune: {method: width, keep: "{b}"}]}\n',
        5,
        "the grid has 1521 points; give at most 500",
    ),
}
