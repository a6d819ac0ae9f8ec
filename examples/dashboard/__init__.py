"""A dashboard of orders: watched while they run, counted and summed by what is in their state."""
