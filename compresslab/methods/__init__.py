"""Methods: the settings, the cost, the refused models and the checkpoint format of each.

One family of methods a file. Nothing here imports torch: a worker imports a method's code and a format's reader by name.
"""
