"""Running plans: the store and the worker processes."""
