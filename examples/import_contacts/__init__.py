"""Pages of contacts fetched in a loop, then each contact imported, a few at a time."""
