"""Tables over many runs: which row a run belongs to, its values with intervals, and how they are printed."""
