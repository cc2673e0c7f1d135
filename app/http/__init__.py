"""What routes share: dependencies, the caller, strict JSON, error bodies, streamed responses."""
