"""Published weight sets: find, download, cache, load and save them."""
