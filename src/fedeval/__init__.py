"""fedeval: evaluate medical-imaging models where the data is."""
