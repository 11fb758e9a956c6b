"""Plans: a recipe becomes a frozen graph of nodes with content keys, legal and with an estimate. Imports no torch."""
