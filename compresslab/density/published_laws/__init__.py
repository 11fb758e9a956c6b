"""Published laws of compression: one file a law, with its coefficients and their source. Does not import numpy, since plans need them."""
