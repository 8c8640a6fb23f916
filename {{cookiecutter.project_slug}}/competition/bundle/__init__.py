"""The folder that an offline notebook predicts with, and what runs there. It can be taken out, with tests/bundle."""
