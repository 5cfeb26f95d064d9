"""Networks, and losses of them, that recipes share or that would make a recipe too long."""
