"""From networks and views to stored predictions."""
