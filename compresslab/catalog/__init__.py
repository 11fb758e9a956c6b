"""Names that a plan needs before anything heavy: tasks, references, hardware, published scores. Imports no torch and no numpy."""
