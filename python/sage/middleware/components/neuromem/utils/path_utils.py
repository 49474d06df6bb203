"""Where collections are, as SAGE programs import it."""

from sage._memory_folder import default_data_dir as get_default_data_dir

__all__ = ["get_default_data_dir"]
