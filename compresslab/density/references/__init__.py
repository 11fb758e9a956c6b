"""Reference scaling curves: their laws, their fits, and how a model is read off them."""
