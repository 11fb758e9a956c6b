"""Turns a study's record into one HTML page and into tidy tables."""
