"""Kaggle's service: download, push, submit, scores. This room can be taken out, with tests/kaggle."""
