"""Models that front ends share: the process that runs them, and how front ends ask it."""
