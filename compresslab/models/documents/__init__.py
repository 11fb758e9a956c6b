"""Documents: those of the installed packages, how documents become sequences of tokens, and what keeps them apart in a model."""
