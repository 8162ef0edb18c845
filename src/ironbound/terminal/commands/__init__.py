"""The commands, a module for each family; `main.py` lists them."""
