"""Measurements of inference time and of the speed of this machine."""
