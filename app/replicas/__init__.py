"""Models in replicas of Ray Serve: how the service asks them, and what it knows of each."""
