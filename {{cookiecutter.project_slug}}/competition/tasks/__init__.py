"""The task types, a folder each, and what they share: the life of an item, from a csv row to a submission row."""
