"""Evaluation: lm-eval's harness over a model that computes every shared prefix once. The only room that imports lm_eval."""
