"""Fuzz targets, one a kind of input: ``make fuzz`` (atheris: libFuzzer, guided by the coverage of our modules)."""
