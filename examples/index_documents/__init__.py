"""An expense that somebody must approve, reminded of, and paid on the next pay day."""
