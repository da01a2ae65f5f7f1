"""``python -m mixunlearn_cli`` is ``mixunlearn-cli``."""

from .main import main

if __name__ == "__main__":
    main()
