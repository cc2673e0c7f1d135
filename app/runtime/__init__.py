"""The composition root: opens, watches and closes what lives as long as the process."""
