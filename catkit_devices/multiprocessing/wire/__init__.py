"""Messages between processes: where servers are found, connections, arrays, exceptions."""
