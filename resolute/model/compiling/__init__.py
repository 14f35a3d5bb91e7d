"""What the steps of a flow become in its plan, one kind of step a file."""
