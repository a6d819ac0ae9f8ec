"""What an author writes with: @workflow, the context, its steps and state, and the ports."""
