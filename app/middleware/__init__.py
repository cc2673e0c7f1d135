"""What every request passes: body limits, disconnects, errors, its line in the log."""
