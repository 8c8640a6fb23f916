"""What a run is: its folder, its line in the ledger, what it was made of."""
