"""What is trained: a task reads the config and puts networks, losses, critics and data together."""
