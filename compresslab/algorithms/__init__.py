"""Pure functions on tensors: importances, quantizers, losses, schedules. One method a file, its paper named."""
