"""What is wrong with a competition's files before a minute is spent on them, and which config reads them."""
