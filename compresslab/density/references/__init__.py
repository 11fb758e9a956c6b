"""Reference scaling curves: their laws, their fits, and N_hat of a model from them."""
