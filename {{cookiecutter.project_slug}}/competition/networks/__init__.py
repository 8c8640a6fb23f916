"""Parts of networks that tasks share: encoders and their pretrained weights, adapters, what is joined to features."""
