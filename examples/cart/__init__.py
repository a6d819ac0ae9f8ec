"""A shopping cart: state that belongs to a customer, not to an execution."""
