"""L4, the coordinator: moves runs along. It never imports user code; a plan is data."""
