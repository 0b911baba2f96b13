"""The BIB-AE study."""
