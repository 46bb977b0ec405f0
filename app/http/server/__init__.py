"""The server process: its protocol, its workers and its sockets."""
