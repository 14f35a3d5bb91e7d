"""L3, the engine: how a run moves, and how one attempt of a node is made."""
