"""The training loop of distillation and retraining, and its parts."""
