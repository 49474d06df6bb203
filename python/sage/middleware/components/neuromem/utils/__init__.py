"""Part of the import paths of SAGE programs."""
