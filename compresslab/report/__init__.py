"""Turns a study's record into one page to look at, and into tidy tables."""
