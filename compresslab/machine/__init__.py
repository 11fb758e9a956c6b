"""The machine that runs: its identity, and the speed of its devices by dtype."""
