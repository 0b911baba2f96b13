"""Transformers: attention, blocks, and the networks of showers and sequences made of them."""
