"""Scores and sizes that users give: tables of scores, and models that are not run here. Does not import torch."""
