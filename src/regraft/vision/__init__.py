"""Networks, data and tasks for pictures."""
