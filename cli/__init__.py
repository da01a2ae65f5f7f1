"""The command ``mixunlearn-cli``."""
