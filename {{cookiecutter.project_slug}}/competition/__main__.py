"""`python -m competition VERB` is the same as `competition VERB`."""

from competition.cli import main

if __name__ == "__main__":
    main()
