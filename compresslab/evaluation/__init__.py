"""Evaluation with lm-eval's harness by engines that compute shared prefixes once. Only this package imports lm_eval."""
