"""The server: its objects, its clients, and its process."""
