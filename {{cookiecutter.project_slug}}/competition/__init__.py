"""A Kaggle vision competition, from a csv file to a valid submission: see README.md for the commands."""
