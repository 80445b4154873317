"""GETok-Drive: one camera image in, the whole driving scene out as spatial tokens."""

__version__ = "0.1.0"
