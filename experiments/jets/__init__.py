"""Studies of jets."""
