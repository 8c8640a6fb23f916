"""What formats of image files have of their own: DICOM, how a whole file ends, which way up its pixels are."""
