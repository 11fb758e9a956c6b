"""Plans: a checked recipe becomes a frozen graph of nodes with content keys and estimates. Nothing here imports torch."""
