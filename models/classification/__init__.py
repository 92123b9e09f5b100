"""What learns to tell classes of series apart: arrays and tensors only, as in all of models."""
