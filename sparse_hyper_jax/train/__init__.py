"""Data sets, one training loop, recipes, plots and the command line; needs the extra ``train``."""
