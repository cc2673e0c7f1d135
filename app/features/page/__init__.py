"""The page at `/`, on which everything can be tried."""
