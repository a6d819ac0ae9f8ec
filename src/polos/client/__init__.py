"""What a program holds: the client and the handles of executions."""
