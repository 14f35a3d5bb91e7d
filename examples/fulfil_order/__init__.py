"""An order that must not be left half done: what completed is undone when a part fails."""
