"""Two teams: one has the nodes that charge cards, the other a flow that names them."""
