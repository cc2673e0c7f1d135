"""What a service can do beside its tasks: a folder for each feature, which can be left out."""
