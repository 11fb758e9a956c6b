"""Imported by the product's fork server, so that every worker forked from it watches its products (`guard.emulation`)."""

from guard.emulation import install

install()
