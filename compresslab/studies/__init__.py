"""Studies put together: the one front door that the command line and programs share."""
