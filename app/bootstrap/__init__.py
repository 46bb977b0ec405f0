"""Put parts together, for the server and for the commands; the only package that knows `Settings`."""
