"""Batch inspection on Ray Data: millions of pictures into Parquet, through the same Inspector."""
