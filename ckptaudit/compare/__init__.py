"""Two manifests compared: by name and shape, and by what a load would do."""
