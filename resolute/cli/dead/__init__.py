"""`resolute dead`: what nobody could use, to be looked at, retried or dropped."""
