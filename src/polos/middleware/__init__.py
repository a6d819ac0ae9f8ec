"""Names of the reference SDK for what stands around a workflow's function."""
