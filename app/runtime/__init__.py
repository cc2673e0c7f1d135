"""The composition root: what lives as long as the process, and who opens and watches it."""
