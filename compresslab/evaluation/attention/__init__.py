"""Attention functions of the engines, with which `models.attention` replaces a model's own."""
