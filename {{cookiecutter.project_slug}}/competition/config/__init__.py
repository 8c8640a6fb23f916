"""What may stand in a config, how files and words become one, and what is wrong with them."""
