"""What runs at this moment and how a run stands, in files of the store that every host which sees it can read."""
