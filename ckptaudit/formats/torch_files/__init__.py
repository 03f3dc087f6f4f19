"""What torch writes: the archives and streams of ``torch.save``, of every age, and programs with their weights."""
