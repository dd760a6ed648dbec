"""What would make results look better than they are, one file a way to leak."""
