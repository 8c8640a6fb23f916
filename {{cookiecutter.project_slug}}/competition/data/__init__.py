"""From a row of train.csv to a sample and a batch; which image belongs to which fold."""
