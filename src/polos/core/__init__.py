"""Pure rules on frozen records: no I/O, no event loop, no clock."""
