"""Studies of whole events."""
