"""Measured inference time, and the speed of this machine."""
