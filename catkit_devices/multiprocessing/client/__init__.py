"""The client's side: sessions, calls, and the proxies that users hold."""
