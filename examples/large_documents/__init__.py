"""A flow that passes a document of 5 MB from node to node."""
