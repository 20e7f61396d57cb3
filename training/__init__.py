"""How a task is trained: the algorithms, the loop, checkpoints, logs, several processes. Knows no task by name."""
