"""Pages and plots of this repository's docs, made from files of measurements. Not part of the installed package."""
