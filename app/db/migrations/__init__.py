"""Migrations, one chain for all tables."""
