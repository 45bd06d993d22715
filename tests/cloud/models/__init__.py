"""What the cloud's services decide. No clock, no socket, no thread: time comes in as a number of seconds."""
