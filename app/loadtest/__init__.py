"""The client behind `app bench`."""
