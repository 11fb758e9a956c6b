"""Modelled inference time and the factors of engines on a machine."""
