"""Runs studies and assembles their records, for the command line and for programs."""
