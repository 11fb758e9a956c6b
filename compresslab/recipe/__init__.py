"""Recipes: reads YAML into a validated `Recipe`. Does not import torch."""
