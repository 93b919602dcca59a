"""What Sphinx needs besides the pages in `docs/` to make the site: pages from elsewhere, and the Python reference."""
