"""What the stored answers of variants tell beside their scores. No model is run here."""
