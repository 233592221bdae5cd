"""Charts, pages, grids and tables: pure functions of results."""
