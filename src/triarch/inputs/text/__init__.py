"""Text to tensors and back: vocabularies, chat templates, sentences."""
