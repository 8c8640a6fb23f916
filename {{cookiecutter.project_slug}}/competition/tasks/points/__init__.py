"""Points: places with a class and a confidence, as the peaks of heatmaps."""
