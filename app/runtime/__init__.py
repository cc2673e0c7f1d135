"""The composition root: what lives as long as the process is opened, watched and closed here."""
