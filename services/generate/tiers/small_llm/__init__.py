"""The small language model that runs inside this process."""
