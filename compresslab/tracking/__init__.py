"""Studies in experiment trackers: parameters, curves, scores and densities of every variant, from the study's record."""
