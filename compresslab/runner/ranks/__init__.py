"""Nodes that several processes make together, one a device: how they start, and what ends them."""
