"""What people and other programs see of a scene: overlay pictures and videos, JSON lines, MCAP."""
