"""``python -m fastcheck``: the same as the command, once the package is imported."""

from fastcheck_command import main

if __name__ == "__main__":
    main()
