"""What a device is made of: its members and their rules, access to it, its connection. Drivers import none of it."""
