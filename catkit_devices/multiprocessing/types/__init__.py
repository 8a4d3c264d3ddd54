"""Named objects of a server other than devices: events, conditions, queues, dicts, frame streams."""
