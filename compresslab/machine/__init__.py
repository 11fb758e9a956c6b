"""The machine that runs: what identifies it, and what its devices multiply in how fast."""
