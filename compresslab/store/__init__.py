"""The store of results: what is in it, who makes it, and whether it is still what was written."""
