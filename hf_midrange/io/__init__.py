"""Files that are whole or absent, folders with one writer, and columns that memory may not hold."""
