"""Where nodes run: on this machine (`local`), or on the hosts of a Ray cluster (`ray`)."""
