"""The training loop that distillation and retraining share, and its parts."""
