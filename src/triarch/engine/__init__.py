"""What makes a loaded model fast without changing its answer."""
