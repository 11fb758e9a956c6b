"""Engines: the ways to answer requests with a model, each exact for the architectures that it serves."""
