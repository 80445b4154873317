"""Geometry on pixels: polylines and polygons (numpy and shapely only)."""
