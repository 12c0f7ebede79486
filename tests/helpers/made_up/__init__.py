"""A medium that nobody has, a family that reads it, and a task on it: what the test of adding one puts beside ours."""
