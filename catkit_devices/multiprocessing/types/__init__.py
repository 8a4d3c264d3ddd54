"""What a server keeps by name beside devices: events, conditions, queues, dicts, frame streams."""
