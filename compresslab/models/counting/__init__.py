"""Counts of a model: its parameters, the bytes they take, and what a token reads and keeps."""
