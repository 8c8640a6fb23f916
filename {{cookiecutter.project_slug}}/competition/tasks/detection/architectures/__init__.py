"""Detectors beside FCOS, each imported by who names it: Faster R-CNN of torchvision, the DETRs of transformers."""
