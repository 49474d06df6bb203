"""``python -m sage``: the ``sage`` command."""

from ._command import main

if __name__ == "__main__":
    main()
