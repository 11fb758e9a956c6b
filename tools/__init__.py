"""Programs for the maintainers of this repository. The installed package does not contain them."""
