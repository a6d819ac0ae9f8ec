"""What the reference has under `polos.features`."""
