"""Studies of inference with trained models."""
