"""Pages to look at: check.html and report.html. This room can be taken out, with tests/pages."""
