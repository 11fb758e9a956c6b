"""Running plans: the store, the worker processes, the study."""
