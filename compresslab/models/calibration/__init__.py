"""Statistics of a model on calibration text and logits of a teacher, gathered in one pass for several steps."""
