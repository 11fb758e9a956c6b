"""Whether a step did what its settings ask, counted from the files that it wrote."""
