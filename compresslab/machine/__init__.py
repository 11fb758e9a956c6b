"""The machine that runs: what identifies it, and how fast each of its devices multiplies in each dtype."""
