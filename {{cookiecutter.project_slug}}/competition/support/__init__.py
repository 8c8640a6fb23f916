"""Tools that know nothing of competitions: errors, files that are written whole, processes, progress, folders."""
