"""Enrich every issue of an archive from three services, and keep the result in SQLite."""
