"""How connections are accepted, bounded, drained and closed: uvicorn around the app."""
