"""Attention functions of the engines, which `models.attention` puts in the place of a model's own."""
