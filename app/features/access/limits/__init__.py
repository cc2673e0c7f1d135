"""Rate limits: how they are written, where requests are counted."""
