"""What `app doctor` looks at."""
