"""The server's side: what it keeps, who its clients are, and its process."""
