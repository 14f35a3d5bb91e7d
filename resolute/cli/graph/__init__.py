"""`resolute graph`: a flow as a tree, or as Mermaid."""
