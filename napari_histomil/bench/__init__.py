"""What the program promises of speed, measured: `histomil bench`."""
