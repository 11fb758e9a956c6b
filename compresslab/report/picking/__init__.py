"""Which variant to take: its memory, time, accuracy and their limits, for the page's panel and its table."""
