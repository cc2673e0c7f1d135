"""Decisions: `/v1/decisions` and `/v1/systemone`, questions whose answers are probabilities."""
