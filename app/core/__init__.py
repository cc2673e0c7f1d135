"""What every layer may use: logs, metrics, background tasks, cores, the parent process."""
