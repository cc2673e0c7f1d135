"""Who may call, how often, at which cost: API keys, rate limits, quotas."""
