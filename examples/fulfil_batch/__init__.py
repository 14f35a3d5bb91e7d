"""A batch of orders, each a run of its own that can be looked at, cancelled and retried."""
