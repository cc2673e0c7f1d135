"""SQL: connections, the only commit, tables and their migrations."""
