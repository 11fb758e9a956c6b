"""Names that planning needs: tasks, references, hardware, published scores. Imports no torch and no numpy."""
