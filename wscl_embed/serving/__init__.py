"""A run as a web page on this machine: search before and after side by side, clusters, filters."""
