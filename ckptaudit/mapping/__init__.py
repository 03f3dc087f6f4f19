"""Which tensor of a checkpoint becomes which tensor of a model."""
