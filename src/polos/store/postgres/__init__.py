"""The PostgreSQL store: the same records in any number of processes on any number of machines."""
