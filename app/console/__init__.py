"""What all commands share: options, printed output, the client of a running service."""
