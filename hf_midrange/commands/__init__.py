"""What `hf-midrange` and `scripts/` are made of: options, output folders, and the longer commands."""
