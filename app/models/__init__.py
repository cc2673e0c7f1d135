"""Which models there are, where from, and in which state."""
