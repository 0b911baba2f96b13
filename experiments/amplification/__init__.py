"""What generated events are worth: forecasts and cases where the answer is known."""
