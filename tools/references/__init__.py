"""Makes the references that ship with the package. Run by maintainers: `python -m tools.references.fit`."""
