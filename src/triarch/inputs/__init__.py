"""Raw input to tensors and back, with offsets into the original. No model code."""
