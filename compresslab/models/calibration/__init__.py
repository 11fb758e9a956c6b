"""What calibration text says about a model: gathered in one pass and read by many steps."""
