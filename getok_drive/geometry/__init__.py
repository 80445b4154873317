"""Geometry of pixels and metres: polylines, the camera, the ground plane (numpy and shapely only)."""
