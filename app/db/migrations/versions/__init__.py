"""The migrations themselves, in the order of their numbers; a released one is never edited."""
