"""The one layer that every request passes: bodies, disconnects, errors, metrics, its log line."""
