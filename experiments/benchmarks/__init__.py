"""Benchmarks: how fast jgen is, measured on the machine at hand."""
