"""Checkpoint formats: how packed weights are written, recognised, unpacked and counted."""
