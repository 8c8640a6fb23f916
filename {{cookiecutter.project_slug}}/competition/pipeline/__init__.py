"""What joins the rooms: one fold from images to its score, all stages in order."""
