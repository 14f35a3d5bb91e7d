"""`resolute dev`: server, coordinator, worker and a dashboard in one command."""
