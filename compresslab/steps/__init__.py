"""Steps: each turns a model in memory into another one and records how.

As a library:

    from compresslab.models.load import load
    from compresslab.models.text import calibration_tokens
    from compresslab.recipe.schema import Calibration
    from compresslab.methods.depth import PruneDepth
    from compresslab.steps.contract import Context, run

    loaded = load("offline:smollm2-135m-instruct")
    text = calibration_tokens(Calibration(), loaded.tokenizer)
    saved = run("prune", PruneDepth(method="depth", keep=24), loaded, Context(text), folder)
    print(saved.record.size.counted)
"""
