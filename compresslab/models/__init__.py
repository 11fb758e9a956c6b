"""Models and text: loading, saving, sizes, formats and calibration."""
