"""Recipes: each a frozen dataclass whose fields are the flags of a subcommand."""
