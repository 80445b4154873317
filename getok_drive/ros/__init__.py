"""The ROS 2 side: the only place with rclpy. params, images, calibration, health and slot do without it."""
