"""Pure functions on tensors: importances, quantizers, losses, schedules. One method per file, with its paper."""
