"""How fast the density of open models grows: dated models, the fits, and what follows from a rate of growth."""
