"""Models of which one decoder layer is in memory at a time: the weights are read from the files, and results are written as they come."""
