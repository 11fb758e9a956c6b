"""A study in Markdown, for places that show no page."""
