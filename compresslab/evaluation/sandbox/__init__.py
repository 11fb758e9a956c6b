"""Programs that a model wrote: run in bubblewrap, judged by a supervisor that they cannot reach. Imports nothing heavy."""
