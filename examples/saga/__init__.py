"""A trip is booked piece by piece; what was booked is cancelled when a piece cannot be had."""
