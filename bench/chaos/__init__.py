"""Chaos: real workers killed, frozen and restarted, with their server, and a proof at the end.

Known to be reported now and then: a process frozen between its last look at its claim and the first
line of a body writes that line when it comes back. No check can close that gap; its row is refused.
"""
