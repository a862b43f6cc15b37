"""Reports as one HTML page each: plain data in, a page without external files out."""
