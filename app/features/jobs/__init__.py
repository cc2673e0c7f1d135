"""Jobs that survive restarts: embed many documents in workers, with progress and webhooks."""
