"""Methods: what a recipe may say of each, what it costs, which models it refuses, and in which format it stores weights.

One family of methods a file. Nothing here imports torch: a method's code and a format's reader are modules that a worker imports by name.
"""
