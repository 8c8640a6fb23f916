"""What stored predictions score, by which thresholds, and what each view and network is worth."""
