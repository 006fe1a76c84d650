"""One module per chapter, of the same name as its notebook: compute, draw, explorer."""
