"""How much a study's page covers: the items and tasks that it rests on, and what its run was changed in."""
