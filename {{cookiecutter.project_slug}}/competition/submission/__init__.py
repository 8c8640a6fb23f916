"""From stored predictions to what is handed in: of one run, or of several together."""
