"""How the files of competitions are written: recognised, read and written."""
