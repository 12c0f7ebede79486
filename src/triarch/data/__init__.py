"""Data to learn from: files of many formats -> rows of one kind -> splits, stores and an order to see them in."""
