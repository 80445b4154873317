"""Geometry of pixels and metres: polylines and polygons, the camera, the ground plane (numpy and shapely only)."""
