"""Attention kernels of the engines, and how they take the place of a model's own."""
