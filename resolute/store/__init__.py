"""L2, the store: the only importer of redis. Keys, scripts, connections."""
