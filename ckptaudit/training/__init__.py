"""A model in training: which tensors may move, did they, and who moved them. The files here import torch."""
