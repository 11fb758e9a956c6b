"""Recipes: YAML in, a validated `Recipe` out. Nothing here imports torch."""
