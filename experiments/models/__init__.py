"""Families of models on data whose answers are known."""
