"""Many experiments one after the other or side by side: the grid, the processes, the table of what ran."""
